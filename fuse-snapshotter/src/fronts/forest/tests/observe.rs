//! Who is told what the kernel asks for.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use testdata::image::{Entry, Texture};

use super::{Rig, add_tree, at};
use crate::fronts::forest::file_system::Forest;
use crate::fronts::forest::observers::{AskedFile, Observer};

const SIZE: u64 = 10_000;
const OWN: u32 = 42;

/// What was heard outlives who heard it.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Read { range: Range<u64>, waits: bool, process: u32, shared: bool },
    LookedUp { process: u32 },
    Missed,
}

struct Ears(Arc<Mutex<Vec<Heard>>>);

impl Observer for Ears {
    fn read(&self, file: &AskedFile<'_>, range: Range<u64>, waits: bool, process: u32) {
        self.0.lock().unwrap().push(Heard::Read { range, waits, process, shared: file.shared });
    }

    fn watches(&self, process: u32) -> bool {
        process == OWN
    }

    fn looked_up(&self, _: &AskedFile<'_>, process: u32) -> bool {
        self.0.lock().unwrap().push(Heard::LookedUp { process });
        self.watches(process)
    }

    fn missed(&self) {
        self.0.lock().unwrap().push(Heard::Missed);
    }
}

#[tokio::test]
async fn observers_hear_of_files_as_long_as_they_live() {
    let rig = Rig::new();
    let (base, one) =
        (rig.layer(&[Entry::made("base", Texture::Random, 1, SIZE)]), rig.layer(&[Entry::dir("d")]));
    let forest = Forest::new();
    add_tree(&forest, 1, "one", &[(10, &base), (11, &one)]);
    let file = at(&forest, "one/base").unwrap().number;
    let heard = Arc::new(Mutex::default());
    let observer: Arc<dyn Observer> = Arc::new(Ears(Arc::clone(&heard)));
    forest.observe(&observer);
    assert!(forest.is_watched(OWN) && !forest.is_watched(7));

    // Nothing is in the cache, so no page can be read again without the network.
    assert_eq!(forest.tell_lookup(file, OWN), []);
    forest.read(file, 0, SIZE as usize).await.unwrap();
    assert_eq!(forest.tell_lookup(file, OWN), vec![Range { start: 0, end: SIZE }]);
    assert_eq!(forest.tell_lookup(file, 7), []);
    // The kernel asks for whole pages.
    forest.tell_read(file, 8192, 4096, true, 7);
    add_tree(&forest, 2, "two", &[(10, &base)]);
    forest.tell_read(file, 0, 4096, false, 0);
    forest.tell_missed();
    // Neither directories nor what does not exist are of interest.
    forest.tell_read(at(&forest, "one/d").unwrap().number, 0, 10, false, OWN);
    forest.tell_read(u64::MAX, 0, 10, false, OWN);
    let read = |range, waits, process, shared| Heard::Read { range, waits, process, shared };
    let expected = [
        Heard::LookedUp { process: OWN },
        Heard::LookedUp { process: OWN },
        Heard::LookedUp { process: 7 },
        read(8192..SIZE, true, 7, false),
        read(0..4096, false, 0, true),
        Heard::Missed,
    ];
    assert_eq!(*heard.lock().unwrap(), expected);

    let gone = Arc::downgrade(&observer);
    drop(observer);
    assert!(gone.upgrade().is_none(), "the file system keeps its observers alive");
    forest.tell_read(file, 0, 10, false, OWN);
    assert!(!forest.is_watched(OWN));
    assert_eq!(heard.lock().unwrap().len(), expected.len());
}
