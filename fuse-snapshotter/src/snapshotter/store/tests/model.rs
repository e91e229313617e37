//! Random calls, compared with a model that is a map in memory.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::{Fixture, labels, new};
use crate::snapshotter::store::error::StoreError;
use crate::snapshotter::store::info::{Commit, Kind, Labels, NewSnapshot, Usage};

/// Few keys, so that calls meet each other's snapshots.
const KEYS: [&str; 7] = ["", "a", "b", "c", "d", "e", "f"];

#[derive(Debug, Clone)]
enum Call {
    Create { view: bool, key: usize, parent: usize, label: usize, record: Option<u8> },
    Commit { key: usize, name: usize, parent: usize, label: usize, record: Option<u8>, size: u64 },
    Remove { key: usize },
    Update { key: usize, label: usize, path: Option<usize> },
    SetRecord { key: usize, record: u8 },
    SetUsage { key: usize, size: u64 },
    Number { space: usize, name: usize },
    ForgetNumber { space: usize, name: usize },
    Reopen,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let key = 0..KEYS.len();
    let label = 0..4_usize;
    let record = proptest::option::of(any::<u8>());
    let call = prop_oneof![
        8 => (any::<bool>(), key.clone(), key.clone(), label.clone(), record.clone())
            .prop_map(|(view, key, parent, label, record)| Call::Create { view, key, parent, label, record }),
        8 => (key.clone(), key.clone(), key.clone(), label.clone(), record, any::<u32>()).prop_map(
            |(key, name, parent, label, record, size)| {
                // Mostly without a new parent.
                let parent = if size % 3 == 0 { parent } else { 0 };
                Call::Commit { key, name, parent, label, record, size: size.into() }
            }
        ),
        4 => key.clone().prop_map(|key| Call::Remove { key }),
        3 => (key.clone(), label, proptest::option::of(0..5_usize))
            .prop_map(|(key, label, path)| Call::Update { key, label, path }),
        1 => (key.clone(), any::<u8>()).prop_map(|(key, record)| Call::SetRecord { key, record }),
        1 => (key.clone(), any::<u64>()).prop_map(|(key, size)| Call::SetUsage { key, size }),
        4 => (0..2_usize, key.clone()).prop_map(|(space, name)| Call::Number { space, name }),
        4 => (0..2_usize, key).prop_map(|(space, name)| Call::ForgetNumber { space, name }),
        1 => Just(Call::Reopen),
    ];
    proptest::collection::vec(call, 1..60)
}

fn given(label: usize) -> Labels {
    match label {
        0 => Labels::new(),
        1 => labels(&[("x", "1"), ("y", "")]),
        2 => labels(&[("x", "2"), ("z", "3")]),
        _ => labels(&[("x", ""), ("y", "4")]),
    }
}

fn stored(label: usize) -> Labels {
    given(label).into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

#[derive(Debug, Clone)]
struct ImageFacts {
    id: u64,
    kind: Kind,
    parent: String,
    labels: Labels,
    record: Option<Vec<u8>>,
    usage: Usage,
}

/// What the store should be.
#[derive(Debug, Default)]
struct Model {
    last: u64,
    snapshots: BTreeMap<String, ImageFacts>,
    numbers: BTreeMap<(usize, usize), u32>,
    highest: HashMap<usize, u32>,
}

/// How a call ends: what it gives, or which error.
type Outcome = Result<u64, &'static str>;

impl Model {
    fn children(&self, key: &str) -> usize {
        self.snapshots.values().filter(|known| known.parent == key).count()
    }

    fn call(&mut self, call: &Call) -> Outcome {
        match *call {
            Call::Create { view, key, parent, label, record } => {
                let (key, parent) = (KEYS[key], KEYS[parent]);
                if key.is_empty() {
                    return Err("invalid");
                }
                if !parent.is_empty() {
                    let below = self.snapshots.get(parent).ok_or("missing")?;
                    (below.kind == Kind::Committed).then_some(()).ok_or("invalid")?;
                }
                if self.snapshots.contains_key(key) {
                    return Err("exists");
                }
                self.last += 1;
                let kind = if view { Kind::View } else { Kind::Active };
                let known = ImageFacts {
                    id: self.last,
                    kind,
                    parent: parent.to_owned(),
                    labels: stored(label),
                    record: record.map(|byte| vec![byte]),
                    usage: Usage::default(),
                };
                self.snapshots.insert(key.to_owned(), known);
                Ok(self.last)
            }
            Call::Commit { key, name, parent, label, record, size } => {
                let (key, name, parent) = (KEYS[key], KEYS[name], KEYS[parent]);
                if name.is_empty() {
                    return Err("invalid");
                }
                if self.snapshots.contains_key(name) {
                    return Err("exists");
                }
                let mut known = self.snapshots.get(key).cloned().ok_or("missing")?;
                if known.kind != Kind::Active {
                    return Err("state");
                }
                if !parent.is_empty() && known.parent.is_empty() {
                    let below = self.snapshots.get(parent).filter(|_| parent != key).ok_or("missing")?;
                    (below.kind == Kind::Committed).then_some(()).ok_or("state")?;
                    known.parent = parent.to_owned();
                } else if !parent.is_empty() && known.parent != parent {
                    return Err("invalid");
                }
                self.snapshots.remove(key);
                known.kind = Kind::Committed;
                known.labels = stored(label);
                known.usage = Usage { size, inodes: 1 };
                known.record = record.map(|byte| vec![byte]).or(known.record);
                let id = known.id;
                self.snapshots.insert(name.to_owned(), known);
                Ok(id)
            }
            Call::Remove { key } => {
                let id = self.snapshots.get(KEYS[key]).ok_or("missing")?.id;
                if self.children(KEYS[key]) > 0 {
                    return Err("state");
                }
                self.snapshots.remove(KEYS[key]);
                Ok(id)
            }
            Call::Update { key, label, path } => {
                let known = self.snapshots.get_mut(KEYS[key]).ok_or("missing")?;
                match path {
                    None | Some(0) => known.labels = stored(label),
                    Some(4) => return Err("invalid"),
                    Some(which) => {
                        let name = ["x", "y", "z"][which - 1];
                        known.labels.remove(name);
                        known.labels.extend(stored(label).remove_entry(name));
                    }
                }
                Ok(0)
            }
            Call::SetRecord { key, record } => {
                self.snapshots.get_mut(KEYS[key]).ok_or("missing")?.record = Some(vec![record]);
                Ok(0)
            }
            Call::SetUsage { key, size } => {
                self.snapshots.get_mut(KEYS[key]).ok_or("missing")?.usage = Usage { size, inodes: 2 };
                Ok(0)
            }
            Call::Number { space, name } => {
                if let Some(number) = self.numbers.get(&(space, name)) {
                    return Ok((*number).into());
                }
                let highest = self.highest.entry(space).or_default();
                *highest += 1;
                self.numbers.insert((space, name), *highest);
                Ok((*highest).into())
            }
            Call::ForgetNumber { space, name } => {
                self.numbers.remove(&(space, name));
                if !self.numbers.keys().any(|key| key.0 == space) {
                    self.highest.remove(&space);
                }
                Ok(0)
            }
            Call::Reopen => Ok(0),
        }
    }
}

fn call(f: &Fixture, call: &Call) -> Outcome {
    let space = |space: usize| format!("space {space}");
    let bytes = |record: Option<u8>| record.map(|byte| vec![byte]);
    let result = match *call {
        Call::Create { view, key, parent, label, record } => {
            let kind = if view { Kind::View } else { Kind::Active };
            let made = NewSnapshot {
                labels: given(label),
                record: bytes(record),
                ..new(kind, KEYS[key], KEYS[parent])
            };
            f.store.create(made).map(|created| created.id)
        }
        Call::Commit { key, name, parent, label, record, size } => f.store.commit(Commit {
            key: KEYS[key],
            name: KEYS[name],
            parent: Some(KEYS[parent]),
            labels: given(label),
            usage: Usage { size, inodes: 1 },
            record: bytes(record),
        }),
        Call::Remove { key } => f.store.remove(KEYS[key]).map(|removed| removed.id),
        Call::Update { key, label, path } => {
            let path =
                path.map(|path| ["labels", "labels.x", "labels.y", "labels.z", "kind"][path].to_owned());
            f.store.update(KEYS[key], &given(label), path.as_slice()).map(|_| 0)
        }
        Call::SetRecord { key, record } => f.store.set_record(KEYS[key], &[record]).map(|()| 0),
        Call::SetUsage { key, size } => f.store.set_usage(KEYS[key], Usage { size, inodes: 2 }).map(|()| 0),
        Call::Number { space: s, name } => f.store.number(&space(s), KEYS[name]).map(u64::from),
        Call::ForgetNumber { space: s, name } => f.store.forget_number(&space(s), KEYS[name]).map(|()| 0),
        Call::Reopen => Ok(0),
    };
    result.map_err(|error| match error {
        StoreError::NotFound(_) => "missing",
        StoreError::AlreadyExists(_) => "exists",
        StoreError::InvalidArgument(_) => "invalid",
        StoreError::FailedPrecondition(_) => "state",
        other => panic!("{other}"),
    })
}

/// All that can be asked.
fn compare(f: &Fixture, model: &Model) {
    let infos = f.store.list(|_| true).unwrap();
    let ids = f.store.ids().unwrap();
    assert_eq!(
        infos.iter().map(|info| &info.name).collect::<Vec<_>>(),
        model.snapshots.keys().collect::<Vec<_>>()
    );
    assert_eq!(ids.len(), model.snapshots.len());
    for (info, (key, known)) in infos.iter().zip(&model.snapshots) {
        assert_eq!((info.kind, &info.parent, &info.labels), (known.kind, &known.parent, &known.labels));
        assert_eq!(ids[&known.id], (key.clone(), known.kind));
        assert_eq!(f.store.usage(key).unwrap(), known.usage);
        assert_eq!(f.store.children(key).unwrap().len(), model.children(key));
        let snapshot = f.store.get_any(key).unwrap();
        assert_eq!((snapshot.id, &snapshot.record), (known.id, &known.record));
        let mut parent = &known.parent;
        for node in &snapshot.parents {
            let below = &model.snapshots[parent];
            assert_eq!(
                (&node.key, node.id, &node.record, &node.labels),
                (parent, below.id, &below.record, &below.labels)
            );
            parent = &below.parent;
        }
        assert_eq!(parent, "");
    }
    for space in 0..2 {
        let numbers: BTreeMap<String, u32> =
            f.store.numbers(&format!("space {space}")).unwrap().into_iter().collect();
        let expected: BTreeMap<String, u32> = model
            .numbers
            .iter()
            .filter(|((of, _), _)| *of == space)
            .map(|((_, name), number)| (KEYS[*name].to_owned(), *number))
            .collect();
        assert_eq!(numbers, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(calls in calls()) {
        let mut f = Fixture::new();
        let mut model = Model::default();
        for one in &calls {
            if matches!(one, Call::Reopen) {
                f = f.reopen();
            }
            prop_assert_eq!(call(&f, one), model.call(one), "{:?}", one);
        }
        compare(&f, &model);
        compare(&f.reopen(), &model);
    }
}
