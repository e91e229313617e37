#![expect(clippy::unwrap_used, reason = "a broken fixture must stop the test")]

use std::path::Path;

use super::*;

/// A crate with these files in `src`.
fn crate_of(name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(name).join("src").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn arrows_of(directory: &Path) -> BTreeSet<(String, String)> {
    let found = crate_files::read(directory).unwrap();
    found.iter().flat_map(arrows).collect()
}

#[test]
fn a_circle_through_a_parent_is_found() {
    let made = crate_of(
        "some",
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; pub use b::Thing; pub struct Other;"),
            ("a/b.rs", "use super::Other; pub struct Thing(Other);"),
        ],
    );
    let circles = circles::find(&arrows_of(&made.path().join("some")));
    assert_eq!(circles, [["a/b.rs", "a/mod.rs"]]);
}

#[test]
fn declaring_a_child_is_no_arrow_and_tests_are_left_out() {
    let made = crate_of(
        "some",
        &[
            ("lib.rs", "mod a; mod c; #[cfg(test)] mod tests;"),
            (
                "a/mod.rs",
                "mod b; pub struct Other; #[cfg(test)] mod tests { use super::b::Thing; use crate::c; }",
            ),
            ("a/b.rs", "use super::Other; pub struct Thing(Other);"),
            ("c.rs", "#[cfg(test)] use crate::a::Other; pub fn nothing() {}"),
        ],
    );
    let arrows = arrows_of(&made.path().join("some"));
    assert_eq!(Vec::from_iter(arrows), [("a/b.rs".to_owned(), "a/mod.rs".to_owned())]);
}

#[test]
fn paths_in_expressions_groups_and_nested_modules_are_arrows() {
    let made = crate_of(
        "some",
        &[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::{b::{self, Thing}, c::Other as Name}; fn f() { super::d::run::<u8>(); }"),
            ("b.rs", "pub struct Thing; mod inner { fn f() { super::super::c::run() } }"),
            ("c.rs", "pub(in crate::b) struct Other; fn f(x: std::io::Error) { x.a::<u8>() }"),
            ("d.rs", ""),
        ],
    );
    let arrows = arrows_of(&made.path().join("some"));
    let arrows: Vec<_> = arrows.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(arrows, [("a.rs", "b.rs"), ("a.rs", "c.rs"), ("a.rs", "d.rs"), ("b.rs", "c.rs")]);
}

#[test]
fn an_import_from_a_room_above_is_found() {
    let made = crate_of(
        "fuse-snapshotter",
        &[
            ("lib.rs", "mod base; mod daemon;"),
            ("base/mod.rs", "use crate::daemon::Daemon;"),
            ("daemon/mod.rs", "pub struct Daemon; use crate::base;"),
        ],
    );
    let arrows = arrows_of(&made.path().join("fuse-snapshotter"));
    let upward = rooms::upward("fuse-snapshotter", &arrows);
    assert_eq!(upward, [("base/mod.rs".to_owned(), "daemon/mod.rs".to_owned())]);
}

#[test]
fn programs_are_crates_of_their_own() {
    let made = crate_of(
        "some",
        &[
            ("lib.rs", ""),
            ("bin/tool/main.rs", "mod a; mod b; use a::A;"),
            ("bin/tool/a.rs", "use crate::b::B;"),
            ("bin/tool/b.rs", "use super::a::A;"),
        ],
    );
    let circles = circles::find(&arrows_of(&made.path().join("some")));
    assert_eq!(circles, [["a.rs", "b.rs"]]);
}
