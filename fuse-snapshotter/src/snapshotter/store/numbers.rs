//! Durable numbers: small integers that stand for names, the same after a restart.

use redb::ReadableTable;

use super::SnapshotStore;
use super::database::{NUMBERS, NUMBERS_LAST};
use super::error::StoreError;

impl SnapshotStore {
    /// The number of `name` in `space`: the one it has, or a new one, which is on disk when this returns.
    ///
    /// Numbers begin with 1 and are not reused as long as any name of the space has one: what was known under the
    /// old number, such as an inode in the kernel's memory, must not come to mean something else.
    pub fn number(&self, space: &str, name: &str) -> Result<u32, StoreError> {
        // Nearly always there already, and then without a wait for the disk.
        if let Some(number) = self.find_number(space, name)? {
            return Ok(number);
        }
        self.database.write(|write| {
            let mut numbers = write.open_table(NUMBERS)?;
            // Another thread may have been faster.
            if let Some(number) = numbers.get((space, name))?.map(|number| number.value()) {
                return Ok(number);
            }
            let mut last = write.open_table(NUMBERS_LAST)?;
            let before = last.get(space)?.map_or(0, |number| number.value());
            let number = before.checked_add(1).ok_or_else(|| {
                StoreError::FailedPrecondition(format!("all numbers of space {space} are used up"))
            })?;
            last.insert(space, number)?;
            numbers.insert((space, name), number)?;
            Ok(number)
        })
    }

    /// The number of `name` in `space`, if it has one.
    pub fn find_number(&self, space: &str, name: &str) -> Result<Option<u32>, StoreError> {
        self.database.read(|read| Ok(read.open_table(NUMBERS)?.get((space, name))?.map(|n| n.value())))
    }

    /// Forgets the number of `name` in `space`, if it has one.
    ///
    /// Not on disk at once: a crash may bring the number back, and it then stands for the same name as before.
    pub fn forget_number(&self, space: &str, name: &str) -> Result<(), StoreError> {
        self.database.write_later(|write| {
            let mut numbers = write.open_table(NUMBERS)?;
            numbers.remove((space, name))?;
            let next = numbers.range((space, "")..)?.next().transpose()?;
            if next.is_none_or(|(key, _)| key.value().0 != space) {
                write.open_table(NUMBERS_LAST)?.remove(space)?;
            }
            Ok(())
        })
    }

    /// All names of `space` that have a number, in their order.
    pub fn numbers(&self, space: &str) -> Result<Vec<(String, u32)>, StoreError> {
        self.database.read(|read| {
            let mut found = Vec::new();
            for entry in read.open_table(NUMBERS)?.range((space, "")..)? {
                let (key, number) = entry?;
                let (of, name) = key.value();
                if of != space {
                    break;
                }
                found.push((name.to_owned(), number.value()));
            }
            Ok(found)
        })
    }
}
