//! The rooms of the crates that have some.

use std::collections::BTreeSet;

/// For each crate, its rooms from the lowest up.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[(
    "fuse-snapshotter",
    &["base", "content", "fronts", "image", "foresight", "mount", "snapshotter", "daemon"],
)];

/// The arrows of a crate that lead from a room to one above it.
pub(crate) fn upward(name: &str, arrows: &BTreeSet<(String, String)>) -> Vec<(String, String)> {
    let Some((_, rooms)) = ROOMS.iter().find(|(with_rooms, _)| *with_rooms == name) else {
        return Vec::new();
    };
    let height = |file: &str| rooms.iter().position(|room| file.split('/').next() == Some(room));
    let is_upward = |(from, to): &&(String, String)| height(from).is_some_and(|from| Some(from) < height(to));
    arrows.iter().filter(is_upward).cloned().collect()
}
