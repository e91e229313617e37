//! Strongly connected parts of a graph.

use std::collections::{BTreeMap, BTreeSet};

/// All sets of more than one node in which each can be reached from each other.
pub(crate) fn find(arrows: &BTreeSet<(String, String)>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows {
        next.entry(from).or_default().push(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|node| (*node, reach(&next, node))).collect();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for (node, others) in &reached {
        if !others.contains(node) || !seen.insert(*node) {
            continue;
        }
        let back = |other: &&&str| reached.get(**other).is_some_and(|theirs| theirs.contains(node));
        let circle: Vec<String> = others.iter().filter(back).map(|other| (*other).to_owned()).collect();
        seen.extend(others.iter().filter(|other| circle.iter().any(|member| member == *other)));
        circles.push(circle);
    }
    circles
}

fn reach<'a>(next: &BTreeMap<&'a str, Vec<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = next.get(from).cloned().unwrap_or_default();
    while let Some(node) = open.pop() {
        if reached.insert(node) {
            open.extend(next.get(node).into_iter().flatten());
        }
    }
    reached
}
