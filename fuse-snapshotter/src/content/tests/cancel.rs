//! Reads that are given up at any point.

use std::sync::Arc;
use std::time::Duration;

use crate::content::link::priority::Priority;
use crate::content::spans::request::SpanRequest;

use super::rig::{Rig, check, entry, usual, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_that_is_given_up_does_not_harm_the_next() {
    let rig = Rig::with(usual(30_000), 3000, u64::MAX);
    let big = entry(&rig.image, "usr/lib/big");
    for round in 0..300_u64 {
        let start = (round * 99_991 % 2_900_000) as usize;
        let read = rig.read(big, start..start + 90_000);
        // At many different points of its way, the very first poll among them.
        let _ = tokio::time::timeout(Duration::from_micros(round * 13 % 2000), read).await;
        if round % 10 == 0 {
            rig.read(big, start..start + 50_000).await.unwrap();
        }
    }
    rig.read_all(big).await.unwrap();
    super::rig::until(|| rig.layer.flights() == 0).await;
}

#[tokio::test]
async fn a_read_polled_once_and_dropped_leaves_its_flight_to_others() {
    let rig = Rig::new(usual(65536));
    let file = entry(&rig.image, "usr/lib/last");
    let mut read = Box::pin(rig.layer.fill(file, 0..10));
    assert!(futures::poll!(&mut read).is_pending());
    drop(read);
    rig.read_all(file).await.unwrap();
}

#[tokio::test]
async fn duties_that_are_dropped_end_their_flights() {
    let rig = Rig::new(usual(65536));
    let (flights, tickets) = rig.layer.fetcher().join_or_start(vec![0, 1, 2], Priority::Demand);
    let (joined, none) = rig.layer.fetcher().join_or_start(vec![1], Priority::Demand);
    assert!(none.is_empty() && joined[0].joined && rig.layer.flights() == 3);
    drop(tickets);
    assert_eq!(rig.layer.flights(), 0);
    for flight in flights.into_iter().chain(joined) {
        assert!(matches!(within(flight.wait()).await, Err(crate::content::error::FetchError::Cancelled)));
    }
    rig.read_all(0).await.unwrap();
}

#[tokio::test]
async fn a_run_that_is_dropped_ends_its_flights() {
    let rig = Rig::with(usual(30_000), 1000, u64::MAX);
    for chunks in [0, 1, 15, 40] {
        rig.fake.close();
        let spans = rig.layer.table().spans().len();
        let (flights, tickets) =
            rig.layer.fetcher().join_or_start((spans - 6..spans).collect(), Priority::Background);
        rig.fake.let_pass(chunks);
        let layer = Arc::clone(&rig.layer);
        let flying = tokio::spawn(async move {
            layer.fetcher().fetch(SpanRequest::new(tickets, Priority::Background).going_on_to(0, 0)).await
        });
        super::rig::until(|| rig.fake.active() == 1).await;
        tokio::task::yield_now().await;
        flying.abort();
        for flight in flights {
            let _ = within(flight.wait()).await;
        }
        assert_eq!(rig.layer.flights(), 0);
        rig.fake.open();
    }
    check(&rig.layer, &rig.image, entry(&rig.image, "usr/lib/last"), 0..500_000).await.unwrap();
}
