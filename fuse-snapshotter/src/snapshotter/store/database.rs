//! The database file: opening it, and running one transaction.
//!
//! A transaction is a closure here, so that none can stay open while its caller waits for something else.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::error::{Failure, StoreError};

/// Child's name, under the identifiers of parent and child.
pub(super) const CHILDREN: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("children_v1");
/// Single numbers: [`FORMAT`] and [`SEQUENCE`].
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Assigned numbers, under space and name.
pub(super) const NUMBERS: TableDefinition<'_, (&str, &str), u32> = TableDefinition::new("numbers_v1");
/// Highest number that each space with numbers in it ever gave.
pub(super) const NUMBERS_LAST: TableDefinition<'_, &str, u32> = TableDefinition::new("numbers_last_v1");
/// The snapshotter's own bytes, under the snapshot's identifier.
pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records_v1");
/// [`super::row::Row`] as JSON, under the snapshot's key or name.
pub(super) const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots_v1");

/// Key in [`META`]: the format of all tables together.
const FORMAT: &str = "format";
/// The format written by this version.
const CURRENT: u64 = 1;
/// Key in [`META`]: the identifier that was given out last.
pub(super) const SEQUENCE: &str = "sequence";

/// Thousands of snapshots are a few megabytes; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

/// Makes a database of an open file. Not always redb's own way, so that tests can let the disk fail.
pub(super) type Opener = dyn Fn(File) -> Result<redb::Database, redb::DatabaseError> + Send + Sync;

pub(super) struct Database {
    path: PathBuf,
    opener: Box<Opener>,
    /// `None` after a failure to write: the next call opens it anew. Without that, a disk that was full for a second
    /// would keep the daemon from working until its restart.
    open: RwLock<Option<redb::Database>>,
}

pub(super) fn open_file(file: File) -> Result<redb::Database, redb::DatabaseError> {
    redb::Builder::new().set_cache_size(CACHE_BYTES).create_file(file)
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    pub(super) fn open(path: &Path, opener: Box<Opener>) -> Result<Self, StoreError> {
        let database = open(path, &opener).map_err(|failure| failure.at(path))?;
        Ok(Self { path: path.to_owned(), opener, open: RwLock::new(Some(database)) })
    }

    /// What `look` finds, all of it at one moment.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.with(|database| look(&database.begin_read()?))
    }

    /// All of what `change` does, on disk when this returns; nothing of it if `change` fails.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.commit(Durability::Immediate, change)
    }

    /// As [`Database::write`], but on disk only with the next change that is written so, or when the store is closed.
    /// For what is harmless to lose, and costs no wait for the disk.
    pub(super) fn write_later<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.commit(Durability::None, change)
    }

    fn commit<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(durability)?;
            // Dropped without a commit, a transaction leaves nothing behind.
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    fn with<T>(&self, run: impl FnOnce(&redb::Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let mut open_again = false;
        let result = loop {
            if open_again {
                self.reopen()?;
            }
            let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
            match &*guard {
                Some(database) => break run(database),
                None => open_again = true,
            }
        };
        result.map_err(|failure| {
            if failure.needs_reopening() {
                // Waits for the transactions of others, which are short. What they committed stays committed.
                *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            failure.at(&self.path)
        })
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(open(&self.path, &self.opener).map_err(|failure| failure.at(&self.path))?);
            tracing::warn!(path = %self.path.display(), "opened the snapshot store again after a failure");
        }
        Ok(())
    }
}

fn open(path: &Path, opener: &Opener) -> Result<redb::Database, Failure> {
    let io = |source| Failure::Storage(Box::new(redb::Error::Io(source)));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    // Labels tell what runs here, and the file may have come from elsewhere.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    let (database, is_sound) = checked(opener, file)?;
    if !is_sound {
        tracing::warn!(path = %path.display(), "repaired the snapshot store");
    }
    prepare(path, &database)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        // redb syncs the file, not its name.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    }
    Ok(database)
}

/// Opens the database and verifies the sums of all its pages; tells whether they were right.
///
/// redb itself checks them only after a crash. Otherwise it trusts its file and indexes with numbers from it, so that
/// a damaged one makes it panic: here, where that is caught, rather than in some later call. Reading all of a few
/// megabytes once is cheap.
fn checked(opener: &Opener, file: File) -> Result<(redb::Database, bool), Failure> {
    // All that the closure touches is dropped by a panic.
    catch_unwind(AssertUnwindSafe(|| {
        let mut database = opener(file)?;
        let is_sound = database.check_integrity()?;
        Ok((database, is_sound))
    }))
    .unwrap_or_else(|_| Err(Failure::Damaged("it cannot be read".to_owned())))
}

/// Checks the format, or sets up a new store.
fn prepare(path: &Path, database: &redb::Database) -> Result<(), Failure> {
    let format = |found| StoreError::Format { path: path.to_owned(), found, known: CURRENT };
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(FORMAT)?.map(|value| value.value());
        match found {
            Some(CURRENT) => {}
            Some(other) => return Err(format(format!("has format {other}")).into()),
            None if is_new => {
                meta.insert(FORMAT, CURRENT)?;
            }
            None => return Err(format("is a database of something else".to_owned()).into()),
        }
        // Reading a table that was never written is an error in redb.
        transaction.open_table(CHILDREN)?;
        transaction.open_table(NUMBERS)?;
        transaction.open_table(NUMBERS_LAST)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(SNAPSHOTS)?;
    }
    if is_new {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(())
}
