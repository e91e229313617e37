//! Filters of anybody who may ask containerd for snapshots.
//!
//! The input is filters, divided by zero bytes.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use fuse_snapshotter::snapshotter::filter::Filter;
use fuse_snapshotter::snapshotter::labels;
use fuse_snapshotter::snapshotter::store::{Info, Kind};
use libfuzzer_sys::fuzz_target;
use testdata::seeds;

static INFO: LazyLock<Info> = LazyLock::new(|| Info {
    kind: Kind::Committed,
    name: "sha256:0123".into(),
    parent: String::new(),
    labels: [(labels::TARGET.to_owned(), "sha256:0123".to_owned()), ("a.b".to_owned(), "c d".to_owned())]
        .into(),
    created: SystemTime::UNIX_EPOCH,
    updated: SystemTime::UNIX_EPOCH,
});

fn seeds() -> Vec<&'static str> {
    vec![
        "kind==committed",
        "name~=^sha256:,parent!=x",
        "labels.\"containerd.io/snapshot.ref\"==sha256:0123\0kind==active",
        "labels.a.b~=/c\\/d|c d/",
        "labels.\"a.b\"==\"c\\x20d\",labels.x!=\"\\u00e9\\U0001f600\\101\"",
        "labels.\"a.b\"~=|(?i)C .|",
        "kind",
    ]
}

fuzz_target!(init: seeds::write_if_asked(seeds), |text: &str| {
    let filters: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let Ok(all) = Filter::parse(&filters) else { return };
    // One of several has to match, so together they match what one of them does.
    let each = filters.iter().map(|one| Filter::parse(std::slice::from_ref(one)).expect("a part of what was read"));
    assert_eq!(all.matches(&INFO), each.into_iter().any(|one| one.matches(&INFO)));
});
