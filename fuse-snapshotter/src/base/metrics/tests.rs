#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use std::collections::BTreeSet;
use std::time::Duration;

use super::series::FAMILIES;
use super::*;

fn digest(n: u8) -> Digest {
    format!("sha256:{}", format!("{n:02x}").repeat(32)).parse().unwrap()
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

/// Names of the families in an exposition, after a check of its form: one HELP and one TYPE for each family before
/// its series, no series twice, and a number at the end of each line.
fn families(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut series = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(lines.next().unwrap().starts_with(&format!("# TYPE {name} ")));
            assert!(!names.contains(&name.to_owned()), "{name}");
            names.push(name.to_owned());
            continue;
        }
        let (left, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        assert!(left.starts_with(names.last().unwrap()), "{line}");
        assert!(series.insert(left.to_owned()), "{left}");
    }
    names
}

#[test]
fn a_daemon_without_layers_shows_what_is_counted_from_the_start() {
    let text = Metrics::default().render();
    assert_eq!(
        families(&text),
        ["soci_fs_image_operation_count_key", "soci_fs_operation_count", "soci_snapshotter_build_info"]
    );
    for line in [
        "# TYPE soci_fs_operation_count counter",
        "# TYPE soci_fs_image_operation_count_key gauge",
        "soci_fs_operation_count{layer=\"\",operation_type=\"fuse_failure_state\"} 0",
        "soci_fs_operation_count{layer=\"\",operation_type=\"background_fetch_work_queue_evicted\"} 0",
        "soci_fs_image_operation_count_key{image=\"\",operation_type=\"background_fetch_work_queue_size\"} 0",
    ] {
        assert!(has(&text, line), "{line}\n{text}");
    }
}

#[test]
fn what_was_counted_is_shown_under_the_names_of_the_reference() {
    let metrics = Metrics::new();
    let (layer, image) = (digest(0xaa), digest(0xbb));
    let handle = metrics.layer(&layer);
    handle.served(100, Duration::from_micros(3));
    handle.served(23, Duration::from_micros(1024));
    handle.count(Count::SynchronousReadRemoteFetch);
    handle.add(Count::BackgroundSpanFetch, 7);
    handle.observe(Operation::Mount, Duration::from_millis(250));
    metrics.register(move |scrape: &mut Scrape| {
        scrape.image_operations(&digest(0xbb), ImageOperation::NodeLookup, 1);
        scrape.background_queue(2);
    });
    metrics.count(DaemonCount::FuseMountFailure);
    metrics.count_eager_layer("no_ztoc");
    metrics.count_eager_layer("no_ztoc");
    metrics.count_fetch_error("corrupt");
    let text = metrics.render();
    families(&text);
    for line in [
        format!("soci_fs_operation_count{{layer=\"{layer}\",operation_type=\"synchronous_read_count\"}} 2"),
        format!(
            "soci_fs_operation_count{{layer=\"{layer}\",\
             operation_type=\"synchronous_read_remote_registry_fetch_count\"}} 1"
        ),
        format!(
            "soci_fs_operation_count{{layer=\"{layer}\",operation_type=\"background_span_fetch_count\"}} 7"
        ),
        format!("soci_fs_bytes_served{{layer=\"{layer}\",operation_type=\"synchronous_bytes_served\"}} 123"),
        format!(
            "soci_fs_operation_duration_milliseconds_bucket{{layer=\"{layer}\",operation_type=\"mount\",le=\"128\"}} 0"
        ),
        format!(
            "soci_fs_operation_duration_milliseconds_bucket{{layer=\"{layer}\",operation_type=\"mount\",le=\"256\"}} 1"
        ),
        format!(
            "soci_fs_operation_duration_milliseconds_bucket{{layer=\"{layer}\",\
             operation_type=\"mount\",le=\"16384\"}} 1"
        ),
        format!(
            "soci_fs_operation_duration_milliseconds_bucket{{layer=\"{layer}\",operation_type=\"mount\",le=\"+Inf\"}} 1"
        ),
        format!(
            "soci_fs_operation_duration_milliseconds_sum{{layer=\"{layer}\",operation_type=\"mount\"}} 250"
        ),
        format!(
            "soci_fs_operation_duration_milliseconds_count{{layer=\"{layer}\",operation_type=\"mount\"}} 1"
        ),
        format!(
            "soci_fs_operation_duration_microseconds_bucket{{layer=\"{layer}\",\
             operation_type=\"synchronous_read\",le=\"4\"}} 1"
        ),
        format!(
            "soci_fs_operation_duration_microseconds_bucket{{layer=\"{layer}\",\
             operation_type=\"synchronous_read\",le=\"1024\"}} 2"
        ),
        format!(
            "soci_fs_operation_duration_microseconds_sum{{layer=\"{layer}\",operation_type=\"synchronous_read\"}} 1027"
        ),
        format!("soci_fs_image_operation_count_key{{image=\"{image}\",operation_type=\"node.Lookup\"}} 1"),
        "soci_fs_image_operation_count_key{image=\"\",operation_type=\"background_fetch_work_queue_size\"} 2"
            .into(),
        "soci_fs_operation_count{layer=\"\",operation_type=\"fuse_mount_failure_count\"} 1".into(),
        "soci_snapshotter_eager_layers_total{reason=\"no_ztoc\"} 2".into(),
        "soci_snapshotter_fetch_errors_total{kind=\"corrupt\"} 1".into(),
    ] {
        assert!(has(&text, &line), "{line}\n{text}");
    }
    assert!(!text.contains("node.Getattr") && !text.contains("background_span_fetch_failure_count"));
}

#[test]
fn histograms_have_the_buckets_of_the_reference() {
    let buckets = |what, duration| {
        let metrics = Metrics::new();
        metrics.no_layer().observe(what, duration);
        let text = metrics.render();
        let mut buckets = Vec::new();
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            buckets.push((bound, line.ends_with(" 1")));
        }
        buckets
    };
    let all =
        |last: u32| (0..=last).map(|n| (1 << n).to_string()).chain(["+Inf".to_owned()]).collect::<Vec<_>>();
    let names = |found: &[(String, bool)]| found.iter().map(|(bound, _)| bound.clone()).collect::<Vec<_>>();
    let first = |found: &[(String, bool)]| found.iter().find(|(_, full)| *full).unwrap().0.clone();
    assert_eq!(names(&buckets(Operation::Mount, Duration::ZERO)), all(14));
    assert_eq!(names(&buckets(Operation::NodeReaddir, Duration::ZERO)), all(10));
    for (what, duration, bound) in [
        (Operation::Mount, Duration::ZERO, "1"),
        (Operation::Mount, Duration::from_millis(1), "1"),
        (Operation::Mount, Duration::from_micros(1001), "2"),
        (Operation::Mount, Duration::from_millis(2), "2"),
        (Operation::Mount, Duration::from_nanos(2_000_001), "4"),
        (Operation::Mount, Duration::from_millis(16384), "16384"),
        (Operation::Mount, Duration::from_nanos(16_384_000_001), "+Inf"),
        (Operation::Mount, Duration::MAX, "+Inf"),
        (Operation::NodeReaddir, Duration::from_nanos(1), "1"),
        (Operation::NodeReaddir, Duration::from_micros(1024), "1024"),
        (Operation::NodeReaddir, Duration::from_millis(2), "+Inf"),
    ] {
        assert_eq!(first(&buckets(what, duration)), bound, "{duration:?}");
    }
}

#[test]
fn removed_layers_are_not_shown_any_more() {
    let metrics = Metrics::new();
    let handle = metrics.layer(&digest(1));
    handle.count(Count::ResolveCacheHit);
    metrics.layer(&digest(2)).count(Count::ResolveCacheMiss);
    metrics.remove_layer(&digest(1));
    handle.count(Count::ResolveCacheHit);
    let text = metrics.render();
    assert!(text.contains("resolve_cache_miss"));
    assert!(!text.contains("resolve_cache_hit"), "{text}");
    // It begins anew when the layer comes back.
    metrics.layer(&digest(1)).count(Count::ResolveCacheHit);
    assert!(metrics.render().contains("operation_type=\"resolve_cache_hit\"} 1"));
    // What nobody wants is shown as long as somebody has it.
    let held = metrics.layer(&digest(4));
    held.count(Count::BackgroundSpanFetch);
    metrics.retain_layers(|layer| *layer == digest(1));
    let text = metrics.render();
    assert!(text.contains("resolve_cache_hit") && text.contains("background_span_fetch_count"), "{text}");
    assert!(!text.contains("resolve_cache_miss"), "{text}");
    drop(held);
    metrics.retain_layers(|layer| *layer == digest(1));
    assert!(!metrics.render().contains("background_span_fetch_count"));
    // The same layer is the same handle.
    metrics.layer(&digest(1)).count(Count::ResolveCacheHit);
    assert!(metrics.render().contains("operation_type=\"resolve_cache_hit\"} 2"));
}

#[test]
fn the_failure_state_rises_once_in_five_minutes() {
    let metrics = Metrics::new();
    let state = || {
        let text = metrics.render();
        let line = text.lines().find(|line| line.contains("\"fuse_failure_state\"")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    for (seconds, expected) in [(0, 1), (1, 1), (299, 1), (300, 2), (599, 2), (7200, 3)] {
        metrics.note_failure(Duration::from_secs(seconds));
        assert_eq!(state(), expected, "{seconds}");
    }
    let metrics = Metrics::new();
    let layer = metrics.layer(&digest(1));
    for _ in 0..3 {
        metrics.count_fuse_failure(&layer, Count::FileReadFailure);
    }
    let text = metrics.render();
    assert!(text.contains("operation_type=\"fuse_file_read_failure_count\"} 3"));
    assert!(text.contains("operation_type=\"fuse_failure_state\"} 1"));
}

#[test]
fn what_lives_elsewhere_is_asked_for_at_every_reading() {
    let metrics = Metrics::new();
    let fetched = Arc::new(AtomicU64::new(10));
    let seen = fetched.clone();
    metrics.register(move |scrape: &mut Scrape| {
        scrape.layer_bytes(&digest(1), "/a \"b\"\\\n", 100, seen.load(Ordering::Relaxed));
        scrape.cache(7, 8, 9);
        scrape.snapshots("active", 3);
        scrape.registry(&registry::Stats::default());
        scrape.image_operations(&digest(2), ImageOperation::FileRead, 4);
    });
    let line = |n: u64| {
        format!(
            "soci_fs_layer_fetched_size_bytes{{digest=\"{}\",mountpoint=\"/a \\\"b\\\"\\\\\\n\"}} {n}",
            digest(1)
        )
    };
    assert!(has(&metrics.render(), &line(10)), "{}", metrics.render());
    fetched.store(11, Ordering::Relaxed);
    let text = metrics.render();
    families(&text);
    assert!(has(&text, &line(11)));
    for line in [
        "soci_snapshotter_cache_bytes 7",
        "soci_snapshotter_cache_in_memory_bytes 9",
        "soci_snapshotter_cache_limit_bytes 8",
        "soci_snapshotter_snapshots{kind=\"active\"} 3",
    ] {
        assert!(has(&text, line), "{text}");
    }
}

#[test]
fn the_documentation_names_every_series_with_its_type_labels_and_values() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let document = std::fs::read_to_string(path).unwrap();
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} |", family.name, family.kind.name(), labels.join(", "));
        assert!(document.contains(&row), "no row {row}");
    }
    let operations = Operation::ALL.map(Operation::name);
    let values = operations
        .into_iter()
        .chain(Count::ALL.map(Count::name))
        .chain(DaemonCount::ALL.map(DaemonCount::name))
        .chain(ImageOperation::ALL.map(ImageOperation::name))
        .chain([series::BACKGROUND_QUEUE, series::SYNCHRONOUS_BYTES]);
    for value in values {
        assert!(document.contains(&format!("| `{value}` |")), "no row for {value}");
    }
}
