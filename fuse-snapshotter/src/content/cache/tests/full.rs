//! A disk that is full, or fails.

use testdata::need::{Need, available};

use super::{Layout, content, open, read};
use crate::content::cache::CacheRoot;

/// A file system of so many bytes.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(bytes: u64) -> Option<Self> {
        if !available(&[Need::Root]) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", directory.path(), "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Some(Self(directory))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.path().join("other tenant")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("other tenant")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Files of a megabyte and some bytes, and spans that cut them and their blocks.
fn layout(files: usize) -> Layout {
    Layout::new(vec![(1 << 20) + 700; files], &[300_001, 700_003, 99])
}

#[test]
fn what_a_full_disk_does_not_take_is_read_from_memory() {
    let Some(disk) = Disk::new(3 << 20) else { return };
    let root = CacheRoot::open(disk.0.path(), u64::MAX).unwrap();
    let layout = layout(8);
    let cache = open(&root, &layout);
    for span in 0..layout.spans.len() {
        layout.write(&cache, span, content, true);
        // The spans until here make whole files up to their end.
        let end = layout.spans[span].end;
        for file in (0..8).filter(|file| (file + 1) * layout.sizes[*file] <= end) {
            assert_eq!(
                read(&cache, &layout, file, 0..layout.sizes[file]),
                Some(()),
                "file {file}, span {span}"
            );
        }
    }
    assert!(root.is_failing() && root.in_memory() > 4 << 20, "{}", root.in_memory());
    // In the order of another day, too.
    for file in (0..8).rev() {
        assert_eq!(read(&cache, &layout, file, 1000..70_000), Some(()));
    }
    drop(cache);
    assert_eq!(root.in_memory(), 0);
}

#[test]
fn the_cache_makes_room_below_its_limit_for_whoever_fills_the_disk() {
    let Some(disk) = Disk::new(24 << 20) else { return };
    let root = CacheRoot::open(disk.0.path(), u64::MAX).unwrap();
    let layout = layout(30);
    let cache = open(&root, &layout);
    for span in 0..layout.spans.len() {
        layout.write(&cache, span, content, true);
        root.trim();
    }
    // The newest are there, and most of them on the disk.
    assert_eq!(read(&cache, &layout, 29, 0..layout.sizes[29]), Some(()));
    assert!(root.used() > 8 << 20 && root.used() < 24 << 20, "{}", root.used());
    disk.fill();
    let before = root.used();
    layout.write(&cache, 0, |_, _| 0, false);
    for span in 0..4 {
        layout.write(&cache, span, content, true);
    }
    root.trim();
    assert!(root.used() < before, "{} of {before}", root.used());
    assert_eq!(read(&cache, &layout, 0, 0..layout.sizes[0]), Some(()));
    // It is all the same to the next process.
    drop((cache, root));
    let root = CacheRoot::open(disk.0.path(), u64::MAX).unwrap();
    let cache = open(&root, &layout);
    for file in 0..30 {
        read(&cache, &layout, file, 0..layout.sizes[file]);
    }
}

#[test]
fn when_there_is_room_again_blocks_go_to_the_disk_again() {
    let Some(disk) = Disk::new(24 << 20) else { return };
    let root = CacheRoot::open(disk.0.path(), u64::MAX).unwrap();
    let layout = layout(4);
    let cache = open(&root, &layout);
    disk.fill();
    layout.write(&cache, 0, content, true);
    layout.write(&cache, 1, content, true);
    assert_eq!(read(&cache, &layout, 0, 0..999_000), Some(()));
    assert!(root.in_memory() > 0 && root.used() == 0);
    disk.make_room();
    for span in 2..layout.spans.len() {
        layout.write(&cache, span, content, true);
    }
    assert!(root.used() > 2 << 20, "{}", root.used());
    for file in 0..4 {
        assert_eq!(read(&cache, &layout, file, 0..layout.sizes[file]), Some(()));
    }
}

#[test]
fn memory_is_bounded_but_for_what_readers_wait_for() {
    let Some(disk) = Disk::new(1 << 20) else { return };
    let root = CacheRoot::open(disk.0.path(), u64::MAX).unwrap();
    let layout = Layout::new(vec![1 << 20; 100], &[1 << 20]);
    let cache = open(&root, &layout);
    disk.fill();
    let waited_for = cache.pin(0..256);
    for span in 0..100 {
        layout.write(&cache, span, content, true);
    }
    assert!(root.in_memory() <= 64 << 20, "{}", root.in_memory());
    for file in [0, 99] {
        assert_eq!(read(&cache, &layout, file, 0..1 << 20), Some(()), "file {file}");
    }
    drop(waited_for);
    assert_eq!(read(&cache, &layout, 1, 0..1 << 20), None);
}
