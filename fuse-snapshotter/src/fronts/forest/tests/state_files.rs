//! State files.

use std::sync::Arc;

use serde_json::Value;
use testdata::image::{Entry, Texture};

use super::{Made, Rig, add_tree, at, merge, names};
use crate::content::tree::InodeKind;
use crate::fronts::forest::{Forest, FsError, TreeSlot};

fn layer(rig: &Rig, seed: u64) -> Made {
    rig.layer(&[
        Entry::made(format!("small{seed}"), Texture::Random, seed, 100),
        Entry::made(format!("big{seed}"), Texture::Random, seed, 300_000),
    ])
}

async fn read(forest: &Forest, path: &str) -> String {
    let found = at(forest, path).unwrap();
    let bytes = forest.read(found.number, 0, 1 << 20).await.unwrap();
    assert_eq!(bytes.len() as u64, found.size);
    String::from_utf8(bytes).unwrap()
}

fn percent(state: &Value) -> f64 {
    state["fetchedPercent"].as_f64().unwrap()
}

#[tokio::test]
async fn they_say_how_far_a_layer_has_got() {
    let rig = Rig::new();
    let (lower, upper) = (layer(&rig, 1), layer(&rig, 2));
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &lower), (2, &upper)]);
    let size = std::fs::metadata(&lower.blob).unwrap().len();
    let file = |made: &Made| format!("tree/.soci-snapshotter/{}.json", made.lazy.digest());
    // To the byte, since programs read it.
    let digest = lower.lazy.digest();
    let fresh =
        format!("{{\"digest\":\"{digest}\",\"size\":{size},\"fetchedSize\":0,\"fetchedPercent\":0.0}}\n");
    assert_eq!(read(&forest, &file(&lower)).await, fresh);

    let small = at(&forest, "tree/small1").unwrap().number;
    assert_eq!(forest.read(small, 0, 100).await.unwrap().len(), 100);
    let state: Value = serde_json::from_str(&read(&forest, &file(&lower)).await).unwrap();
    let fetched = state["fetchedSize"].as_u64().unwrap();
    assert_eq!(fetched, lower.lazy.fetched_size());
    assert!(fetched > 0 && fetched < size, "{fetched} of {size}");
    assert!((percent(&state) - fetched as f64 * 100.0 / size as f64).abs() < 1e-9);
    // The other layer has got nowhere.
    let other: Value = serde_json::from_str(&read(&forest, &file(&upper)).await).unwrap();
    assert_eq!(other["fetchedSize"], 0);

    let big = at(&forest, "tree/big1").unwrap().number;
    assert_eq!(forest.read(big, 0, 300_000).await.unwrap().len(), 300_000);
    let all = read(&forest, "tree/.soci-snapshotter/layers.json").await;
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let digests: Vec<_> = all.iter().map(|state| state["digest"].as_str().unwrap().to_owned()).collect();
    assert_eq!(digests, [lower.lazy.digest().to_string(), upper.lazy.digest().to_string()]);
    assert!(percent(&all[0]) > 95.0 && percent(&all[0]) <= 100.0);
    assert!(all.iter().all(|state| state.get("error").is_none()));
}

#[tokio::test]
async fn they_tell_the_last_error() {
    let rig = Rig::new();
    let made = layer(&rig, 1);
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &made)]);
    let file = std::fs::OpenOptions::new().write(true).open(&made.blob).unwrap();
    file.set_len(0).unwrap();
    let big = at(&forest, "tree/big1").unwrap().number;
    let error = forest.read(big, 0, 10).await.unwrap_err();
    assert!(matches!(error, FsError::Fetch(_)) && error.is_failure());
    let state: Value =
        serde_json::from_str(&read(&forest, "tree/.soci-snapshotter/layers.json").await).unwrap();
    assert_eq!(state["error"], error.to_string());
    // As the reference has it: first.
    assert!(read(&forest, "tree/.soci-snapshotter/layers.json").await.starts_with("{\"error\":"));
}

#[tokio::test]
async fn they_are_found_but_not_listed() {
    let rig = Rig::new();
    let made = layer(&rig, 1);
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &made), (1, &made)]);
    assert_eq!(names(&forest, "tree"), ["big1", "small1"]);
    let directory = at(&forest, "tree/.soci-snapshotter").unwrap();
    assert_eq!((directory.kind, directory.mode, directory.uid), (InodeKind::Directory, 0o500, 0));
    assert_eq!(forest.getattr(directory.number).unwrap(), directory);
    let file = format!("{}.json", made.lazy.digest());
    let listed = names(&forest, "tree/.soci-snapshotter");
    assert_eq!(listed, ["layers.json".to_owned(), file.clone()]);
    let found = forest.lookup(directory.number, file.as_bytes()).unwrap();
    assert_eq!((found.kind, found.mode, found.uid), (InodeKind::Regular, 0o400, 0));
    assert!(found.number < 1 << 48 && directory.number < 1 << 48);
    for number in [directory.number, found.number] {
        assert!(forest.is_volatile(number));
    }
    for name in ["nothing", "sha256:.json", ".soci-snapshotter"] {
        assert!(matches!(forest.lookup(directory.number, name.as_bytes()), Err(FsError::NotFound)));
    }
}

#[tokio::test]
async fn an_image_with_that_name_wins() {
    let rig = Rig::new();
    let made = rig.layer(&[Entry::file(".soci-snapshotter", "mine")]);
    let forest = Forest::single(merge(&[&made]), vec![Arc::clone(&made.lazy)]).unwrap();
    assert_eq!(read(&forest, ".soci-snapshotter").await, "mine");
    let plain = layer(&rig, 1);
    let forest = Forest::single(merge(&[&plain]), vec![Arc::clone(&plain.lazy)]).unwrap();
    assert_eq!(read(&forest, ".soci-snapshotter/layers.json").await.lines().count(), 1);
}

#[tokio::test]
async fn bytes_stay_until_they_are_forgotten() {
    let rig = Rig::new();
    let made = layer(&rig, 1);
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &made)]);
    let first = at(&forest, "tree/.soci-snapshotter/layers.json").unwrap();
    let before = forest.read(first.number, 0, 1000).await.unwrap();
    let small = at(&forest, "tree/small1").unwrap().number;
    forest.read(small, 0, 100).await.unwrap();
    let second = at(&forest, "tree/.soci-snapshotter/layers.json").unwrap();
    assert_ne!(first.number, second.number);
    assert_eq!(forest.read(first.number, 0, 1000).await.unwrap(), before);
    assert_ne!(forest.read(second.number, 0, 1000).await.unwrap(), before);
    assert_eq!(forest.read(first.number, 3, 4).await.unwrap(), before[3..7]);
    assert_eq!(forest.read(first.number, 1 << 40, 4).await.unwrap(), b"");

    forest.forget(first.number);
    assert!(matches!(forest.getattr(first.number), Err(FsError::Stale)));
    assert!(forest.getattr(second.number).is_ok());
    // What has no bytes to keep is not gone when it is forgotten.
    forest.forget(small);
    assert!(forest.getattr(small).is_ok());
    forest.remove_tree(TreeSlot(1));
    assert!(matches!(forest.read(second.number, 0, 1).await, Err(FsError::Stale)));
    assert_eq!(forest.state_files(), 0);
}

#[test]
fn the_oldest_ones_go_when_there_are_too_many() {
    let rig = Rig::new();
    let made = layer(&rig, 1);
    let forest = Forest::new();
    add_tree(&forest, 1, "tree", &[(1, &made)]);
    let directory = at(&forest, "tree/.soci-snapshotter").unwrap().number;
    let look_up = || forest.lookup(directory, b"layers.json").unwrap().number;
    let files: Vec<_> = (0..1100).map(|_| look_up()).collect();
    assert_eq!(forest.state_files(), 1024);
    assert!(forest.getattr(files[75]).is_err() && forest.getattr(files[76]).is_ok());
    // A listing that is cut off keeps nothing of what was not taken.
    files.iter().for_each(|number| forest.forget(*number));
    forest.list(directory, 0, |_, _| true).unwrap();
    assert_eq!(forest.state_files(), 0);
}
