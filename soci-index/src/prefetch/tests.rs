use super::*;

fn ranges(pairs: &[(u32, u32)]) -> Vec<SpanRange> {
    pairs.iter().map(|&(start, end)| SpanRange::new(start, end)).collect()
}

/// Bytes and digest that the reference writes.
#[test]
fn golden_artifact_of_the_reference() {
    let artifact = PrefetchArtifact::new(ranges(&[(50, 55), (10, 15)])).unwrap();
    let bytes = artifact.encode();
    assert_eq!(bytes.len(), 100);
    assert_eq!(
        Digest::of(&bytes).to_string(),
        "sha256:9d03bf3e869322acb8fc0e98c1355b7f788fd5cc49562c90ba07491cb345c772"
    );
    assert_eq!(PrefetchArtifact::parse(&bytes).unwrap(), artifact);
    assert_eq!(artifact.total_spans(), 12);
}

#[test]
fn ranges_are_joined_where_they_overlap_or_touch() {
    for (given, expected) in [
        (&[(0, 0), (1, 1)][..], &[(0, 1)][..]),
        (&[(0, 0), (2, 2)], &[(0, 0), (2, 2)]),
        (&[(4, 9), (0, 5), (5, 6)], &[(0, 9)]),
        (&[(0, 9), (3, 4), (11, 11)], &[(0, 9), (11, 11)]),
        (&[(7, 7), (7, 7)], &[(7, 7)]),
        (&[(0, u32::MAX), (5, 6)], &[(0, u32::MAX)]),
    ] {
        assert_eq!(PrefetchArtifact::new(ranges(given)).unwrap().ranges(), ranges(expected), "{given:?}");
    }
    assert_eq!(PrefetchArtifact::new(Vec::new()), None);
}

#[test]
fn hostile_artifacts_are_refused() {
    for (json, message) in [
        (r#"{"version":"1.1","prefetch_spans":[{"start_span":0,"end_span":0}]}"#, "unsupported"),
        (r#"{"prefetch_spans":[{"start_span":0,"end_span":0}]}"#, "malformed"),
        (r#"{"version":"1.0","prefetch_spans":[]}"#, "empty"),
        (r#"{"version":"1.0","prefetch_spans":null}"#, "empty"),
        (r#"{"version":"1.0"}"#, "empty"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":-1,"end_span":0}]}"#, "no range"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":3,"end_span":2}]}"#, "no range"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":2147483648}]}"#, "no range"),
        (r#"{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":1e30}]}"#, "malformed"),
        (r#"{"version":"1.0","prefetch_spans":[null]}"#, "malformed"),
        ("[]", "malformed"),
        ("", "malformed"),
    ] {
        let error = PrefetchArtifact::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(message), "{error} does not mention {message}");
    }
    let huge = vec![b' '; MAX_PREFETCH_SIZE as usize + 1];
    assert!(PrefetchArtifact::parse(&huge).unwrap_err().to_string().contains("more than"));
}

#[test]
fn spans_that_do_not_exist_are_never_given_out() {
    let json = r#"{"version":"1.0","prefetch_spans":[{"start_span":8,"end_span":2147483647,"priority":3},{"start_span":0,"end_span":1},{"start_span":1,"end_span":2}]}"#;
    let artifact = PrefetchArtifact::parse(json.as_bytes()).unwrap();
    assert_eq!(artifact.within(10), [0..3, 8..10]);
    assert_eq!(artifact.within(8), vec![0..3; 1]);
    assert!(artifact.within(0).is_empty());
    assert!(artifact.check(10).is_err());
    assert!(PrefetchArtifact::new(ranges(&[(0, 9)])).unwrap().check(10).is_ok());
    assert_eq!(PrefetchArtifact::parse(&artifact.encode()).unwrap(), artifact);
}

fn prioritised(list: &[(u32, u32, i64)]) -> Vec<SpanRange> {
    list.iter().map(|&(start, end, priority)| SpanRange { start, end, priority }).collect()
}

#[test]
fn an_ordered_artifact_names_each_span_once_where_it_came_first() {
    for (given, expected) in [
        (&[(5, 7, 1), (2, 3, 2), (6, 9, 3)][..], &[(5, 7, 1), (2, 3, 2), (8, 9, 3)][..]),
        // What goes on is one range, though something else was in between.
        (&[(0, 0, 1), (1, 1, 4), (9, 9, 5), (2, 2, 6)], &[(0, 1, 1), (9, 9, 5), (2, 2, 6)]),
        (&[(1, 1, 1), (3, 3, 2), (0, 9, 3)], &[(1, 1, 1), (3, 3, 2), (0, 0, 3), (2, 2, 3), (4, 9, 3)]),
        (&[(4, 4, 1), (4, 4, 2), (0, 4, 3)], &[(4, 4, 1), (0, 3, 3)]),
    ] {
        let artifact = PrefetchArtifact::in_order(prioritised(given)).unwrap();
        assert_eq!(artifact.ranges(), prioritised(expected), "{given:?}");
        assert_eq!(PrefetchArtifact::parse(&artifact.encode()).unwrap(), artifact);
    }
    assert_eq!(PrefetchArtifact::in_order([]), None);
}

/// Against a set, for many orders of many ranges.
#[test]
fn an_ordered_artifact_loses_no_span() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let given: Vec<SpanRange> = (0..random.u32(1..40))
            .map(|_| (random.u32(0..60), random.u32(0..9)))
            .map(|(start, length)| SpanRange::new(start, start + length))
            .collect();
        let mut wanted = Vec::new();
        for span in given.iter().flat_map(|range| range.start..=range.end) {
            if !wanted.contains(&span) {
                wanted.push(span);
            }
        }
        let artifact = PrefetchArtifact::in_order(given).unwrap();
        let named: Vec<u32> = artifact.ranges().iter().flat_map(|range| range.start..=range.end).collect();
        assert_eq!(named, wanted);
    }
}

#[test]
fn what_is_named_again_and_again_comes_once() {
    let whole = i32::MAX as u32;
    // Backwards, so that nothing is in the order it stands in.
    let repeated = (0..100_000).map(|at| SpanRange { start: 5, end: whole, priority: -at });
    let hostile = PrefetchArtifact { ranges: repeated.chain(ranges(&[(3, 9), (0, whole)])).collect() };
    let other = PrefetchArtifact { ranges: ranges(&[(4, 4), (4, 4)]) };
    let order = interleave(&[("hostile", &hostile), ("other", &other)]);
    let order: Vec<_> = order.into_iter().map(|(layer, range)| (layer, range.start, range.end)).collect();
    assert_eq!(order, [("hostile", 5, whole), ("hostile", 3, 4), ("hostile", 0, 2), ("other", 4, 4)]);
}

#[test]
fn layers_take_turns_as_they_were_read() {
    let lower = vec![(0, 3..5), (2, 9..10)];
    let upper = vec![(1, 0..1), (3, 1..2)];
    let numbered = prioritise(&[lower, upper]);
    assert_eq!(numbered[0], prioritised(&[(3, 4, 1), (9, 9, 3)]));
    assert_eq!(numbered[1], prioritised(&[(0, 0, 2), (1, 1, 4)]));
    let artifacts: Vec<_> =
        numbered.into_iter().map(|ranges| PrefetchArtifact::in_order(ranges).unwrap()).collect();
    let order = interleave(&[("lower", &artifacts[0]), ("upper", &artifacts[1])]);
    let order: Vec<_> = order.into_iter().map(|(layer, range)| (layer, range.start, range.end)).collect();
    assert_eq!(order, [("lower", 3, 4), ("upper", 0, 1), ("lower", 9, 9)]);
    // Artifacts without an order.
    let [one, two] =
        [&[(4, 4), (1, 1)][..], &[(0, 0)]].map(|pairs| PrefetchArtifact::new(ranges(pairs)).unwrap());
    let order = interleave(&[(0, &one), (1, &two)]);
    assert_eq!(
        order.iter().map(|(layer, range)| (*layer, range.start)).collect::<Vec<_>>(),
        [(0, 1), (0, 4), (1, 0)]
    );
}
