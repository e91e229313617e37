//! The rooms of the crates that have some.

use std::collections::BTreeSet;

/// For each crate, its rooms from the lowest up. Rooms side by side do not use each other.
const ROOMS: &[(&str, &[&[&str]])] = &[(
    "fuse-snapshotter",
    &[&["base"], &["content"], &["fronts", "image"], &["foresight"], &["mount", "snapshotter"], &["daemon"]],
)];

/// The arrows of a crate that lead from a room to one above it, or beside it.
pub(crate) fn upward(name: &str, arrows: &BTreeSet<(String, String)>) -> Vec<(String, String)> {
    let Some((_, floors)) = ROOMS.iter().find(|(with_rooms, _)| *with_rooms == name) else {
        return Vec::new();
    };
    let is_upward = |(from, to): &&(String, String)| {
        let (from, to) = (room(from), room(to));
        let floor = |room: &str| floors.iter().position(|floor| floor.contains(&room));
        from != to && floor(from).is_some_and(|from| floor(to).is_some_and(|to| to >= from))
    };
    arrows.iter().filter(is_upward).cloned().collect()
}

fn room(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or_default()
}
