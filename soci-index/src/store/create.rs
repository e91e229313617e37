//! Making a database file so that it is there as a whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes names of unfinished files differ.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes the database `path`, readable by its owner only, if there is none. `make` writes it; what it returns is dropped.
///
/// A process that ends in the middle would otherwise leave a file that no process can open any more. Of several that
/// make it at the same time one wins, and the others find its file.
///
/// # Errors
/// Those of `make` and of the disk.
pub fn create_database<T, E>(path: &Path, make: impl FnOnce(File) -> Result<T, E>) -> Result<(), redb::Error>
where
    redb::Error: From<E>,
{
    if path.exists() {
        return Ok(());
    }
    remove_unfinished(path);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = unfinished(path, &format!("{}.{number}", std::process::id()));
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary);
    let made =
        options.map_err(redb::Error::Io).and_then(|file| make(file).map(drop).map_err(redb::Error::from));
    let published = made.and_then(|()| match std::fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(redb::Error::Io(error)),
        _ => Ok(()),
    });
    // Its other name stays.
    let _ = std::fs::remove_file(&temporary);
    published
}

fn unfinished(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".new-{suffix}"));
    name.into()
}

/// Removes what processes that are no more have left.
fn remove_unfinished(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix(".new-"));
        let process = rest.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn make(file: File) -> Result<redb::Database, redb::DatabaseError> {
        redb::Builder::new().create_file(file)
    }

    fn names(directory: &Path) -> Vec<OsString> {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_database_is_made_once_and_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        // Of a process that ended: no process has this number.
        std::fs::write(unfinished(&path, "4294967295.0"), "half").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| create_database(&path, make).unwrap());
            }
        });
        assert_eq!(names(directory.path()), ["a.redb"]);
        drop(redb::Database::open(&path).unwrap());
        let before = std::fs::read(&path).unwrap();
        create_database(&path, |_| -> Result<(), redb::DatabaseError> { panic!("it is there") }).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn nothing_is_left_of_one_that_cannot_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.redb");
        let fail = |_| Err::<(), _>(redb::DatabaseError::DatabaseAlreadyOpen);
        assert!(create_database(&path, fail).is_err());
        assert!(names(directory.path()).is_empty());
    }
}
