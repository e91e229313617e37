//! Durable numbers.

use std::collections::HashSet;
use std::sync::Arc;

use super::Fixture;

#[test]
fn a_name_keeps_its_number() {
    let f = Fixture::new();
    assert_eq!(f.store.number("layers", "a").unwrap(), 1);
    assert_eq!(f.store.number("layers", "b").unwrap(), 2);
    assert_eq!(f.store.number("trees", "b").unwrap(), 1);
    assert_eq!(f.store.number("layers", "a").unwrap(), 1);
    let f = f.reopen();
    assert_eq!(f.store.number("layers", "b").unwrap(), 2);
    assert_eq!(f.store.number("layers", "c").unwrap(), 3);
    assert_eq!(f.store.numbers("trees").unwrap(), [("b".to_owned(), 1)]);
    assert_eq!(f.store.numbers("none").unwrap(), []);
}

#[test]
fn a_number_is_not_reused_while_its_space_has_any() {
    let f = Fixture::new();
    for name in ["a", "b", "c"] {
        f.store.number("s", name).unwrap();
    }
    // A neighbour in the order of keys keeps nothing alive, and loses nothing.
    f.store.number("r", "x").unwrap();
    f.store.number("t", "x").unwrap();
    f.store.forget_number("s", "c").unwrap();
    f.store.forget_number("s", "never").unwrap();
    let f = f.reopen();
    assert_eq!(f.store.number("s", "c").unwrap(), 4);
    for name in ["a", "b", "c"] {
        f.store.forget_number("s", name).unwrap();
    }
    assert_eq!(f.store.numbers("s").unwrap(), []);
    assert_eq!(f.store.number("s", "d").unwrap(), 1);
    assert_eq!(f.store.number("r", "y").unwrap(), 2);
    assert_eq!(f.store.number("t", "y").unwrap(), 2);
}

#[test]
fn threads_agree_on_numbers() {
    let f = Fixture::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&f.store);
            std::thread::spawn(move || {
                (0..50).map(|n| store.number("s", &format!("name {n}")).unwrap()).collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: HashSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(answers.len(), 1);
    let numbers: HashSet<_> = answers.into_iter().flatten().collect();
    assert_eq!(numbers, (1..=50).collect());
}
