//! zTOCs that nobody honest has made: an error or a sane tree, never a panic, never much memory.

use testdata::image::Entry;

use super::{merge, merge_below, paths, walk};
use crate::content::tree::Below;

fn refused(layers: &[Vec<Entry>]) -> (usize, &'static str) {
    let error = merge_below(layers, Below::Nothing).unwrap_err();
    (error.layer, error.reason)
}

#[test]
fn long_paths_and_names_are_refused() {
    let name = "n".repeat(255);
    assert_eq!(paths(&merge(&[vec![Entry::file(&name, "")]])), [name.as_str()]);
    assert_eq!(refused(&[vec![Entry::file(format!("{name}n"), "")]]), (0, "a name is longer than 255 bytes"));
    assert_eq!(
        refused(&[vec![Entry::file(format!("d/{name}n/x"), "")]]),
        (0, "a name is longer than 255 bytes")
    );
    let path = format!("{}x", "d/".repeat(2048));
    assert_eq!(refused(&[vec![], vec![Entry::file(path, "")]]), (1, "the path is too long"));
    let target = "t".repeat(4096);
    assert_eq!(
        refused(&[vec![Entry::symlink("l", target)]]),
        (0, "a symbolic link's target is empty, too long, or contains a NUL byte")
    );
}

#[test]
fn the_longest_path_is_served() {
    let deepest = format!("{}xx", "d/".repeat(2047));
    assert_eq!(deepest.len(), 4096);
    let tree =
        merge(&[vec![Entry::file(&deepest, "")], vec![Entry::file("d/y", ""), Entry::whiteout("d/d/d/d")]]);
    assert_eq!(paths(&tree), ["d", "d/d", "d/d/d", "d/y"]);
    let tree = merge(&[vec![Entry::file(&deepest, "")], vec![Entry::file(&deepest, "new")]]);
    assert_eq!((tree.len(), walk(&tree).len()), (2049, 2049));
}

#[test]
fn paths_that_imply_thousands_of_directories_each_are_refused() {
    let entries =
        |count: usize| (0..count).map(|i| Entry::file(format!("{i}{}", "/d".repeat(2000)), "")).collect();
    assert_eq!(merge(&[entries(2)]).len(), 2 * 2001 + 1);
    assert_eq!(refused(&[vec![], entries(100)]), (1, "too many directories without entries"));
    // What real archivers leave out is no trouble.
    let plain = (0..2000).map(|i| Entry::file(format!("app/{i}/lib/src/file"), ""));
    assert_eq!(merge(&[plain.collect()]).len(), 2000 * 4 + 2);
}

#[test]
fn dot_dot_does_not_leave_the_root() {
    let up = "../".repeat(1000);
    let layer = vec![
        Entry::file(format!("{up}a"), ""),
        Entry::hard_link("b", format!("{up}a")),
        Entry::file("..", ""),
    ];
    assert_eq!(paths(&merge(&[layer])), ["a", "b"]);
    assert_eq!(
        paths(&merge(&[vec![Entry::dir(".."), Entry::dir("a/.."), Entry::dir("."), Entry::dir("/")]])),
        [""; 0]
    );
}

#[test]
fn links_without_a_target_are_refused_where_they_are_seen() {
    let missing = "a hard link to a file that is not there";
    let file = || Entry::file("f", "");
    assert_eq!(refused(&[vec![file()], vec![Entry::hard_link("l", "no")]]), (1, missing));
    // To itself, in a circle, and to what comes later.
    assert_eq!(refused(&[vec![Entry::hard_link("l", "l")]]), (0, missing));
    assert_eq!(refused(&[vec![Entry::hard_link("a", "b"), Entry::hard_link("b", "a")]]), (0, missing));
    assert_eq!(refused(&[vec![Entry::hard_link("l", "f"), file()]]), (0, missing));
    assert_eq!(refused(&[vec![Entry::dir("d")], vec![Entry::hard_link("l", "d")]]), (1, missing));
    assert_eq!(
        refused(&[vec![Entry::dir("d"), Entry::hard_link("l", "d")]]),
        (0, "a hard link to a directory")
    );
    assert_eq!(refused(&[vec![Entry::hard_link("l", "/")]]), (0, "a hard link to a directory"));
    // A later layer that hides it makes it harmless.
    let hidden = [vec![file(), Entry::hard_link("l", "no")], vec![Entry::whiteout("l")]];
    assert_eq!(paths(&merge(&hidden)), ["f"]);
}

#[test]
fn a_thousand_layers_of_one_directory_take_no_longer_than_their_entries() {
    let layers: Vec<_> = (0..1000).map(|i| vec![Entry::file(format!("a/b/c/f{i}"), "")]).collect();
    assert_eq!(merge(&layers).len(), 1004);
}

#[test]
fn names_with_nul_are_refused() {
    use crate::content::tree::path::components;
    assert!(components(b"a\0b").is_err() && components(b"d/\0/x").is_err());
    assert_eq!(components(b"//a/./b/../c/").unwrap(), [&b"a"[..], b"c"]);
}
