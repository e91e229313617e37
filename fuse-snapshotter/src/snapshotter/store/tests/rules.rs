//! What containerd expects of a snapshotter's store.

use std::collections::HashSet;
use std::time::SystemTime;

use super::super::info::{MAX_KEY_BYTES, MAX_LABEL_BYTES, MAX_RECORD_BYTES};
use super::{Fixture, commit, labels, new, paths};
use crate::snapshotter::filter::Filter;
use crate::snapshotter::store::error::StoreError;
use crate::snapshotter::store::info::{Commit, Kind, Labels, NewSnapshot, Usage};

#[test]
fn a_chain_of_snapshots_is_made_committed_and_seen_from_the_top() {
    let f = Fixture::new();
    assert!(f.store.is_empty().unwrap());
    let first = f.active("a", "");
    let first_committed = f
        .store
        .commit(Commit {
            record: Some(b"lazy".to_vec()),
            labels: labels(&[("l", "1")]),
            ..commit("a", "one")
        })
        .unwrap();
    assert_eq!(first_committed, first);
    let second = f.committed("two", "one");
    let made = f.create(Kind::View, "v", "two").unwrap();
    assert!(first < second && second < made.id);

    let view = f.store.get("v").unwrap();
    assert_eq!((view.id, view.kind, view.key.as_str()), (made.id, Kind::View, "v"));
    assert_eq!(view.parents, made.parents);
    let chain: Vec<_> = view.parents.iter().map(|node| (node.id, node.key.as_str())).collect();
    assert_eq!(chain, [(second, "two"), (first, "one")]);
    assert_eq!(view.parents[1].record.as_deref(), Some(&b"lazy"[..]));
    assert_eq!(view.parents[1].labels, labels(&[("l", "1")]));
    assert_eq!(view.parents[0].record, None);
    assert!(!f.store.is_empty().unwrap());
}

#[test]
fn only_committed_snapshots_are_parents() {
    let f = Fixture::new();
    f.active("a", "");
    f.create(Kind::View, "v", "").unwrap();
    for parent in ["a", "v"] {
        let error = f.create(Kind::Active, "b", parent).unwrap_err();
        assert!(matches!(error, StoreError::InvalidArgument(_)), "{error}");
        assert_eq!(
            error.to_string(),
            format!("parent {parent:?} is not committed snapshot: invalid argument")
        );
    }
    let error = f.create(Kind::Active, "b", "nothing").unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    let error = f.store.create(new(Kind::Committed, "b", "")).unwrap_err();
    assert!(matches!(error, StoreError::InvalidArgument(_)), "{error}");
    assert_eq!(f.store.ids().unwrap().len(), 2);
}

#[test]
fn keys_and_names_share_one_space() {
    let f = Fixture::new();
    f.committed("c", "");
    f.active("a", "");
    for key in ["a", "c"] {
        let error = f.create(Kind::View, key, "").unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists(_)));
        assert_eq!(error.to_string(), format!("snapshot {key}: already exists"));
        let error = f.store.commit(commit("a", key)).unwrap_err();
        assert!(matches!(error, StoreError::AlreadyExists(_)));
        assert_eq!(error.to_string(), format!("committed snapshot {key}: already exists"));
    }
    assert_eq!(f.store.get("a").unwrap().kind, Kind::Active);
}

#[test]
fn only_active_snapshots_are_committed() {
    let f = Fixture::new();
    f.committed("c", "");
    f.create(Kind::View, "v", "").unwrap();
    for key in ["c", "v"] {
        let error = f.store.commit(commit(key, "new")).unwrap_err();
        assert!(matches!(error, StoreError::FailedPrecondition(_)), "{error}");
    }
    let error = f.store.commit(commit("nothing", "new")).unwrap_err();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    // Its key is gone after the commit, and a committed snapshot is not mounted.
    f.active("a", "c");
    f.store.commit(commit("a", "d")).unwrap();
    assert!(matches!(f.store.get("a"), Err(StoreError::NotFound(_))));
    assert!(matches!(f.store.get("d"), Err(StoreError::FailedPrecondition(_))));
    assert_eq!(f.store.get_any("d").unwrap().parents.len(), 1);
}

#[test]
fn a_commit_has_labels_usage_and_times_of_its_own() {
    let f = Fixture::new();
    let made = NewSnapshot {
        labels: labels(&[("of", "active"), ("empty", "")]),
        record: Some(b"kept".to_vec()),
        ..new(Kind::Active, "a", "")
    };
    f.store.create(made).unwrap();
    let before = f.store.stat("a").unwrap();
    assert_eq!(before.labels, labels(&[("of", "active")]));
    assert_eq!(before.created, before.updated);
    assert_eq!(f.store.usage("a").unwrap(), Usage::default());

    let usage = Usage { size: 4096, inodes: 3 };
    f.store.commit(Commit { labels: labels(&[("x", "y"), ("", "")]), usage, ..commit("a", "c") }).unwrap();
    let after = f.store.stat("c").unwrap();
    assert_eq!(after.labels, labels(&[("x", "y")]));
    assert!(after.created >= before.created && after.created <= SystemTime::now());
    assert_eq!(after.created, after.updated);
    assert_eq!(f.store.usage("c").unwrap(), usage);
    assert_eq!(f.store.get_any("c").unwrap().record.as_deref(), Some(&b"kept"[..]));

    f.store.set_usage("c", Usage { size: 1, inodes: 1 }).unwrap();
    assert_eq!(f.store.usage("c").unwrap().size, 1);
    f.store.set_record("c", b"new").unwrap();
    assert_eq!(f.store.get_any("c").unwrap().record.as_deref(), Some(&b"new"[..]));
    assert_eq!(f.store.stat("c").unwrap(), after);
}

#[test]
fn a_commit_can_give_a_parent_to_a_snapshot_without_one() {
    let f = Fixture::new();
    let base = f.committed("base", "");
    let other = f.committed("other", "");
    let rebase = |key, name, parent| Commit { parent: Some(parent), ..commit(key, name) };

    f.active("a", "");
    f.store.commit(rebase("a", "on base", "base")).unwrap();
    assert_eq!(f.store.get_any("on base").unwrap().parents[0].id, base);
    assert_eq!(f.store.children("base").unwrap(), ["on base"]);
    assert!(matches!(f.store.remove("base"), Err(StoreError::FailedPrecondition(_))));

    // The parent it has, or none, changes nothing.
    f.active("b", "base");
    f.store.commit(rebase("b", "same", "base")).unwrap();
    f.active("c", "other");
    f.store.commit(rebase("c", "kept", "")).unwrap();
    assert_eq!(f.store.get_any("kept").unwrap().parents[0].id, other);

    f.active("d", "base");
    assert!(matches!(f.store.commit(rebase("d", "e", "other")), Err(StoreError::InvalidArgument(_))));
    f.active("f", "");
    assert!(matches!(f.store.commit(rebase("f", "g", "d")), Err(StoreError::FailedPrecondition(_))));
    // Neither what does not exist, nor what is just being made, nor what is ceasing to be.
    for parent in ["nothing", "g", "f"] {
        assert!(matches!(f.store.commit(rebase("f", "g", parent)), Err(StoreError::NotFound(_))), "{parent}");
    }
    assert_eq!(f.store.get("f").unwrap().parents, []);
    assert_eq!(f.store.children("other").unwrap(), ["kept"]);
}

#[test]
fn what_has_children_stays() {
    let f = Fixture::new();
    let base = f.committed("base", "");
    f.active("a", "base");
    f.create(Kind::View, "v", "base").unwrap();
    assert_eq!(f.store.children("base").unwrap(), ["a", "v"]);
    let error = f.store.remove("base").unwrap_err();
    assert_eq!(error.to_string(), "cannot remove snapshot with child: failed precondition");
    f.store.remove("a").unwrap();
    assert!(f.store.remove("base").is_err());
    let removed = f.store.remove("v").unwrap();
    assert_eq!((removed.kind, removed.parent.as_deref()), (Kind::View, Some("base")));
    f.store.set_record("base", b"r").unwrap();
    let removed = f.store.remove("base").unwrap();
    assert_eq!((removed.id, removed.kind, removed.parent), (base, Kind::Committed, None));
    assert_eq!(removed.record.as_deref(), Some(&b"r"[..]));
    assert!(f.store.is_empty().unwrap());
    assert_eq!(f.store.remove("base").unwrap_err().to_string(), "snapshot base: not found");
    // Neither its identifier nor its record comes back.
    assert!(f.committed("base", "") > base);
    assert_eq!(f.store.get_any("base").unwrap().record, None);
}

#[test]
fn identifiers_are_never_reused() {
    let mut f = Fixture::new();
    let mut seen = HashSet::new();
    for _ in 0..3 {
        for key in ["a", "b"] {
            assert!(seen.insert(f.active(key, "")));
        }
        // Refused calls change nothing.
        assert!(f.create(Kind::Active, "a", "").is_err());
        f.store.remove("b").unwrap();
        f.store.remove("a").unwrap();
        f = f.reopen();
    }
    assert_eq!(seen.iter().max(), Some(&6));
}

#[test]
fn updates_change_labels_and_nothing_else() {
    let f = Fixture::new();
    f.committed("base", "");
    f.store
        .create(NewSnapshot { labels: labels(&[("a", "1"), ("b", "2")]), ..new(Kind::Active, "k", "base") })
        .unwrap();
    let before = f.store.stat("k").unwrap();

    let after = f.store.update("k", &labels(&[("a", "x"), ("c", "3"), ("d", "")]), &[]).unwrap();
    assert_eq!(after.labels, labels(&[("a", "x"), ("c", "3")]));
    assert_eq!((after.created, after.kind, after.parent.as_str()), (before.created, Kind::Active, "base"));
    assert!(after.updated >= before.updated);
    assert_eq!(f.store.stat("k").unwrap(), after);

    // By path: set, removed by an empty value, removed by absence, added; the rest stays.
    let given = labels(&[("a", "y"), ("c", ""), ("e.f", "g"), ("ignored", "i")]);
    let after =
        f.store.update("k", &given, &paths(&["labels.a", "labels.c", "labels.e.f", "labels.z"])).unwrap();
    assert_eq!(after.labels, labels(&[("a", "y"), ("e.f", "g")]));
    let after = f.store.update("k", &labels(&[("new", "n")]), &paths(&["labels"])).unwrap();
    assert_eq!(after.labels, labels(&[("new", "n")]));
    let after = f.store.update("k", &Labels::new(), &[]).unwrap();
    assert_eq!(after.labels, Labels::new());

    let unchanged = f.store.stat("k").unwrap();
    for path in ["parent", "name", "kind", "", "label.a", "labelsx"] {
        let error = f.store.update("k", &given, &paths(&["labels.a", path])).unwrap_err();
        assert!(matches!(error, StoreError::InvalidArgument(_)), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot update {path:?} field on snapshot \"k\"")));
    }
    assert_eq!(f.store.stat("k").unwrap(), unchanged);
    assert!(matches!(f.store.update("nothing", &given, &[]), Err(StoreError::NotFound(_))));
}

#[test]
fn labels_keys_and_records_are_bounded() {
    let f = Fixture::new();
    let fits = "v".repeat(MAX_LABEL_BYTES - 1);
    let too_long = "v".repeat(MAX_LABEL_BYTES);
    let with = |value: &str| NewSnapshot { labels: labels(&[("k", value)]), ..new(Kind::Active, "a", "") };
    let error = f.store.create(with(&too_long)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "label key and value length (4097 bytes) greater than maximum size (4096 bytes), key: k: invalid argument"
    );
    f.store.create(with(&fits)).unwrap();
    let too_long = labels(&[("k", &too_long)]);
    assert!(matches!(f.store.update("a", &too_long, &[]), Err(StoreError::InvalidArgument(_))));
    assert!(matches!(
        f.store.commit(Commit { labels: too_long, ..commit("a", "c") }),
        Err(StoreError::InvalidArgument(_))
    ));
    assert!(matches!(f.store.update("a", &labels(&[("", "v")]), &[]), Err(StoreError::InvalidArgument(_))));

    assert!(matches!(f.create(Kind::Active, "", ""), Err(StoreError::InvalidArgument(_))));
    assert!(matches!(f.store.commit(commit("a", "")), Err(StoreError::InvalidArgument(_))));
    let long = "k".repeat(MAX_KEY_BYTES);
    f.active(&long, "");
    assert!(matches!(f.create(Kind::Active, &format!("{long}k"), ""), Err(StoreError::InvalidArgument(_))));

    f.store.set_record("a", &vec![0; MAX_RECORD_BYTES]).unwrap();
    let large = vec![0; MAX_RECORD_BYTES + 1];
    assert!(matches!(f.store.set_record("a", &large), Err(StoreError::InvalidArgument(_))));
    assert!(matches!(
        f.store.create(NewSnapshot { record: Some(large), ..new(Kind::Active, "b", "") }),
        Err(StoreError::InvalidArgument(_))
    ));
}

#[test]
fn what_does_not_exist_is_not_found() {
    let f = Fixture::new();
    let text = "snapshot k does not exist: not found";
    assert_eq!(f.store.get("k").unwrap_err().to_string(), text);
    assert_eq!(f.store.stat("k").unwrap_err().to_string(), text);
    assert_eq!(f.store.usage("k").unwrap_err().to_string(), text);
    assert_eq!(f.store.children("k").unwrap_err().to_string(), text);
    assert_eq!(f.store.set_record("k", b"").unwrap_err().to_string(), text);
    assert_eq!(f.store.set_usage("k", Usage::default()).unwrap_err().to_string(), text);
    assert!(matches!(f.store.get(""), Err(StoreError::NotFound(_))));
}

#[test]
fn lists_are_filtered_and_in_the_order_of_keys() {
    let f = Fixture::new();
    f.committed("m", "");
    for key in ["z", "a", "é", "B"] {
        f.create(Kind::View, key, "m").unwrap();
    }
    let list = |filters: &[&str]| -> Vec<String> {
        let filter = Filter::parse(&paths(filters)).unwrap();
        f.store.list(|info| filter.matches(info)).unwrap().into_iter().map(|info| info.name).collect()
    };
    assert_eq!(list(&[]), ["B", "a", "m", "z", "é"]);
    assert_eq!(list(&["parent==m,name!=a"]), ["B", "z", "é"]);
    assert_eq!(list(&["kind==committed", "name==z"]), ["m", "z"]);
    for info in f.store.list(|_| true).unwrap() {
        assert_eq!(f.store.stat(&info.name).unwrap(), info);
    }
}

#[test]
fn thousands_of_snapshots() {
    let f = Fixture::new();
    let mut parent = String::new();
    for layer in 0..200 {
        let name = format!("layer {layer}");
        f.committed(&name, &parent);
        parent = name;
    }
    for container in 0..2000 {
        f.create(Kind::Active, &format!("container {container}"), &parent).unwrap();
    }
    let f = f.reopen();
    assert_eq!(f.store.ids().unwrap().len(), 2200);
    assert_eq!(f.store.children(&parent).unwrap().len(), 2000);
    let snapshot = f.store.get("container 1234").unwrap();
    assert_eq!(snapshot.parents.len(), 200);
    assert!(snapshot.parents.iter().rev().zip(0..).all(|(node, layer)| node.key == format!("layer {layer}")));
    let filter = Filter::parse(&paths(&["kind==active"])).unwrap();
    assert_eq!(f.store.list(|info| filter.matches(info)).unwrap().len(), 2000);
}
