//! Recordings on disk.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use registry::Digest;
use soci_index::recording::{MAX_RECORDING_SIZE, Recording};

/// Recordings of images that are not on this node that are kept, the latest. They are what makes the next pull of an
/// image that was removed a fast one, and take some 100 kB each.
const KEPT: usize = 128;

/// How long they are kept.
const AGE: Duration = Duration::from_secs(30 * 24 * 3600);

const EXTENSION: &str = "json";

/// A directory of recordings, each named by the digest of its image's manifest in hexadecimal.
#[derive(Debug)]
pub(super) struct Recordings {
    directory: PathBuf,
    /// Makes names of temporary files differ.
    next: AtomicU64,
}

impl Recordings {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
            // What an earlier process did not finish.
            if entry.path().extension().is_none_or(|extension| extension != EXTENSION) {
                remove(&entry.path());
            }
        }
        Ok(Self { directory: directory.to_owned(), next: AtomicU64::new(0) })
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(manifest.hex()).with_extension(EXTENSION)
    }

    /// The recording of an image. One that is damaged is none.
    pub(super) fn load(&self, manifest: &Digest) -> Option<Recording> {
        let mut json = Vec::new();
        let file = File::open(self.path(manifest)).ok()?;
        let read = file.take(MAX_RECORDING_SIZE + 1).read_to_end(&mut json);
        let parsed = match read {
            Ok(_) => Recording::parse(&json).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let found = parsed.and_then(|found| {
            let same = found.manifest == *manifest;
            if same { Ok(found) } else { Err("it is another image's".to_owned()) }
        });
        found
            .inspect_err(
                |error| tracing::warn!(image = %manifest, %error, "cannot use the recording of a start"),
            )
            .ok()
    }

    /// Stores a recording for good.
    pub(super) fn save(&self, recording: &Recording) -> io::Result<()> {
        let json = recording.encode().map_err(io::Error::other)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{}.{number}", recording.manifest.hex()));
        crate::base::durable::write(&self.path(&recording.manifest), &temporary, &json)
    }

    /// Removes recordings of images that are not `used`, as far as they are old, or too many. What cannot be
    /// removed stays.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn collect(&self, used: &HashSet<String>) -> io::Result<()> {
        let mut unused = Vec::new();
        for entry in std::fs::read_dir(&self.directory)?.filter_map(Result::ok) {
            let path = entry.path();
            let is_recording = path.extension().is_some_and(|extension| extension == EXTENSION);
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if is_recording && !used.contains(name) {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                unused.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
        }
        unused.sort_by(|a, b| b.cmp(a));
        for (at, (modified, path)) in unused.into_iter().enumerate() {
            if at >= KEPT || modified.elapsed().is_ok_and(|age| age > AGE) {
                remove(&path);
            }
        }
        Ok(())
    }
}

/// Removes a file. Nothing depends on that: what is in the way must not keep the daemon from its work.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove what is no recording in use; please remove it");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use soci_index::recording::{RecordedLayer, RecordedRead};

    use super::*;

    fn recording(name: &[u8]) -> Recording {
        Recording {
            image: "r.example/a:b".into(),
            manifest: Digest::of(name),
            index: Digest::of(b"index"),
            taken: 1,
            cold: true,
            waited: 0,
            layers: vec![RecordedLayer { layer: Digest::of(b"layer"), ztoc: Digest::of(b"ztoc") }],
            reads: vec![RecordedRead { layer: 0, entry: 1, range: 0..5, milliseconds: 0 }],
            unattributed: Some(Vec::new()),
        }
    }

    #[test]
    fn damaged_and_foreign_recordings_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let files = Recordings::open(directory.path()).unwrap();
        let own = recording(b"own");
        assert_eq!(files.load(&own.manifest), None);
        files.save(&own).unwrap();
        assert_eq!(files.load(&own.manifest).as_ref(), Some(&own));
        let path = files.path(&own.manifest);
        let json = std::fs::read(&path).unwrap();
        std::fs::write(&path, &json[..json.len() - 1]).unwrap();
        assert_eq!(files.load(&own.manifest), None);
        std::fs::write(&path, recording(b"other").encode().unwrap()).unwrap();
        assert_eq!(files.load(&own.manifest), None);
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(files.load(&own.manifest), None);
        files.save(&own).unwrap();
        assert_eq!(files.load(&own.manifest), Some(own));
    }

    #[test]
    fn what_was_not_finished_goes_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        Recordings::open(directory.path()).unwrap().save(&recording(b"a")).unwrap();
        let partial = directory.path().join(format!("{}.7", Digest::of(b"a").hex()));
        std::fs::write(&partial, "{").unwrap();
        let files = Recordings::open(directory.path()).unwrap();
        assert!(!partial.exists());
        assert!(files.load(&Digest::of(b"a")).is_some());
    }

    /// Only recordings belong there, but others can write there, too.
    #[test]
    fn what_cannot_be_removed_stays_and_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let stranger = directory.path().join("lost+found");
        std::fs::create_dir_all(stranger.join("x")).unwrap();
        let files = Recordings::open(directory.path()).unwrap();
        assert!(stranger.exists());
        files.save(&recording(b"0")).unwrap();
        // Older ones come after it.
        let in_the_way = directory.path().join("directory.json");
        std::fs::create_dir(&in_the_way).unwrap();
        let old = SystemTime::now() - AGE * 2;
        std::fs::File::open(&in_the_way).unwrap().set_modified(old).unwrap();
        files.save(&recording(b"old")).unwrap();
        let path = files.path(&Digest::of(b"old"));
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(old - AGE).unwrap();
        files.collect(&HashSet::new()).unwrap();
        assert!(in_the_way.exists() && !path.exists());
        assert!(files.load(&Digest::of(b"0")).is_some());
    }

    #[test]
    fn recordings_of_removed_images_are_kept_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let files = Recordings::open(directory.path()).unwrap();
        let now = SystemTime::now();
        let age = |name: &[u8], age: Duration| {
            files.save(&recording(name)).unwrap();
            let file = File::options().write(true).open(files.path(&Digest::of(name))).unwrap();
            file.set_modified(now - age).unwrap();
        };
        age(b"in use", AGE * 2);
        age(b"forgotten", AGE * 2);
        age(b"removed", AGE / 2);
        files.collect(&HashSet::from([Digest::of(b"in use").hex().to_owned()])).unwrap();
        let is_there = |name: &[u8]| files.load(&Digest::of(name)).is_some();
        assert!(is_there(b"in use") && is_there(b"removed") && !is_there(b"forgotten"));
        for number in 0..KEPT {
            age(number.to_string().as_bytes(), Duration::ZERO);
        }
        files.collect(&HashSet::new()).unwrap();
        assert!(!is_there(b"removed") && !is_there(b"in use") && is_there(b"0"));
    }
}
