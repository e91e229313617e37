#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use registry::{Anonymous, ClientConfig, RetryPolicy, Timeouts};
use tokio::sync::Semaphore;

use super::file::KEYS;
use super::keys::LISTS;
use super::values::limit;
use super::*;
use crate::snapshotter::pull::UNLIMITED;

fn parse(text: &str) -> (Config, Vec<Note>) {
    Config::parse(text).unwrap_or_else(|mistake| panic!("line {}: {}", mistake.line, mistake.message))
}

fn config(text: &str) -> Config {
    parse(text).0
}

fn mistake(text: &str) -> (usize, String) {
    let mistake = Config::parse(text).unwrap_err();
    (mistake.line, mistake.message)
}

fn client(config: &Config) -> ClientConfig {
    config.client_config(Arc::new(Anonymous))
}

/// Problems as `severity key: message`.
fn problems(text: &str) -> Vec<String> {
    config(text).problems().iter().map(|problem| format!("{:?} {problem}", problem.severity)).collect()
}

#[test]
fn the_default_file_is_the_default_configuration() {
    let (config, notes) = parse(&Config::default_toml());
    assert_eq!(config, Config::default());
    assert_eq!(notes, []);
    assert_eq!(parse(""), (Config::default(), Vec::new()));
}

#[test]
fn the_default_file_with_its_examples_is_well_formed() {
    let text: String = Config::default_toml()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example) if example.starts_with('[') || example.contains(" = ") => format!("{example}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (config, notes) = parse(&text);
    assert!(notes.iter().all(|note| matches!(note.kind, NoteKind::NoEffect { .. })), "{notes:?}");
    assert_eq!(client(&config).hosts["registry.example.com"].mirrors.len(), 1);
}

#[test]
fn a_dump_is_the_same_configuration() {
    let changed = r#"
        debug = true
        max_concurrency = -1
        [http]
        maxretries = 3
        [cache]
        max_size = "3MiB"
        [pull_modes.parallel_pull_unpack.decompress_streams.gzip]
        path = "/bin/true"
        args = ["-x"]
        [[resolver.host."r:5000".mirrors]]
        host = "https://m"
        request_timeout_sec = -1
        "#;
    for text in ["", changed, &Config::default_toml()] {
        let before = config(text);
        let (after, notes) = parse(&before.to_toml().unwrap());
        assert_eq!(after, before);
        assert!(notes.iter().all(|note| matches!(note.kind, NoteKind::NoEffect { .. })), "{notes:?}");
    }
    // What applies is written, not that a default does.
    let dump = config("[http]\nMinWaitMsec = 7\n").to_toml().unwrap();
    let table: toml::Table = dump.parse().unwrap();
    assert_eq!(table["blob"]["min_wait_msec"].as_integer(), Some(7));
    assert_eq!(table["mount_timeout_sec"].as_integer(), Some(30));
}

/// Names, tables and places are written in the declarations of tables apart from each other.
#[test]
fn every_key_of_the_list_is_one_of_the_structures_and_the_other_way_round() {
    fn collect(prefix: &str, value: &toml::Value, into: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let starred = if ["host", "streams", "index"].iter().any(|table| prefix.ends_with(table))
                    {
                        "*"
                    } else {
                        name
                    };
                    let path = super::keys::join(prefix, starred);
                    collect(&path, value, into);
                }
            }
            toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
                list.iter().for_each(|value| collect(prefix, value, into));
            }
            _ => {
                into.insert(prefix.to_owned());
            }
        }
    }
    let full = "[[resolver.host.h.mirrors]]\nhost = \"m\"\n[pull_modes.parallel_pull_unpack.decompress_streams.s]\npath = \"p\"\n\
                [pull_modes.index.i]\ndigest = \"d\"";
    let dump: toml::Table = config(full).to_toml().unwrap().parse().unwrap();
    let mut written = BTreeSet::new();
    collect("", &toml::Value::Table(dump), &mut written);
    let listed: BTreeSet<_> = KEYS.iter().map(|key| key.path()).collect();
    assert_eq!(written, listed);
    assert_eq!(listed.len(), KEYS.len());
    assert_eq!(KEYS.iter().filter(|key| key.is_own).count(), 10);
    assert!(LISTS.iter().all(|list| KEYS.iter().any(|key| key.table == *list)));
}

#[test]
fn names_may_be_in_any_case_but_not_twice() {
    let config = config("DEBUG = true\n[HTTP]\ndialtimeoutmsec = 7\n[Pull_Modes.SOCI_V1]\nEnable = false\n");
    assert!(config.debug());
    assert_eq!(client(&config).timeouts.connect, Duration::from_millis(7));
    assert!(!config.settings().pull.v1);
    let (_, message) = mistake("debug = true\nDebug = false\n");
    assert!(message.contains("given twice"), "{message}");
}

#[test]
fn unknown_keys_are_reported_with_their_lines_and_the_rest_applies() {
    let (config, notes) = parse(
        "debug = true\ncolour = 1\n[http]\ndial_timeout_msec = 5\nMaxRetries = 2\n[nothing.below]\nx = 1\n\
         [[resolver.host.\"r\".mirrors]]\nhost = \"m\"\nport = 1\n",
    );
    assert!(config.debug());
    assert_eq!(client(&config).retry.max_retries, 2);
    let texts: Vec<_> = notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 2: unknown key colour",
            "line 4: unknown key http.dial_timeout_msec; is http.DialTimeoutMsec meant?",
            "line 6: unknown key nothing",
            "line 10: unknown key resolver.host.r.mirrors.port",
        ]
    );
}

#[test]
fn keys_without_effect_are_reported_when_they_ask_for_something() {
    let (_, notes) =
        parse("metadata_store = \"db\"\ndisable_verification = true\n[directory_cache]\ndirect = true\n");
    let texts: Vec<_> = notes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["line 2: disable_verification has no effect: nothing unverified is ever served"]);
}

#[test]
fn mistakes_name_the_line_the_key_the_value_and_what_is_allowed() {
    let long = format!("debug = \"{}\"", "x".repeat(500));
    for (text, line, expected) in [
        ("\ndebug = 1", 2, "debug = 1: expected true or false"),
        (
            "[http]\nmaxretries = \"8\"",
            2,
            "http.maxretries = \"8\": expected a whole number from -1000000 to 1000000",
        ),
        ("mount_timeout_sec = -1", 1, "mount_timeout_sec = -1: expected a whole number from 0 to 2592000"),
        ("mount_timeout_sec = 1.5", 1, "mount_timeout_sec = 1.5: expected a whole number from 0 to 2592000"),
        (
            "mount_timeout_sec = 0xffffffffff",
            1,
            "mount_timeout_sec = 0xffffffffff: expected a whole number from 0 to 2592000",
        ),
        ("metrics_network = \"udp\"", 1, "metrics_network = \"udp\": expected \"tcp\" or \"unix\""),
        (
            "[background_fetch]\ndrop_policy = \"any\"",
            2,
            "background_fetch.drop_policy = \"any\": expected \"newest\" or \"oldest\"",
        ),
        (
            "[content_store]\ntype = \"docker\"",
            2,
            "content_store.type = \"docker\": expected \"soci\" or \"containerd\"",
        ),
        (
            "[cache]\nmax_size = \"much\"",
            2,
            "cache.max_size = \"much\": expected a number of bytes or a size such as \"10GiB\", at most 1024TiB",
        ),
        (
            "[cache]\nmax_size = -1",
            2,
            "cache.max_size = -1: expected a number of bytes or a size such as \"10GiB\", at most 1024TiB",
        ),
        ("http = 3", 1, "http = 3: expected a table"),
        ("[resolver.host.r]\nmirrors = 3", 2, "resolver.host.r.mirrors = 3: expected a list of tables"),
        ("[resolver.host.r]\nmirrors = [3]", 2, "resolver.host.r.mirrors = 3: expected a table"),
        ("[resolver]\nhost = []", 2, "resolver.host = []: expected a table"),
        (
            "pull_modes.parallel_pull_unpack.decompress_streams.gzip.args = [1]",
            1,
            "pull_modes.parallel_pull_unpack.decompress_streams.gzip.args = [1]: expected a list of texts",
        ),
        (&long, 1, &format!("debug = \"{}…: expected true or false", "x".repeat(59))),
    ] {
        assert_eq!(mistake(text), (line, expected.to_owned()), "{text}");
    }
    assert_eq!(mistake("debug = true\n[http\n").0, 2);
    assert_eq!(mistake("debug = true\ndebug = true\n").0, 2);
}

#[test]
fn zero_and_nothing_stand_for_the_default() {
    let zero = "mount_timeout_sec = 0\nmax_concurrency = 0\nmetrics_network = \"\"\n\
        [http]\nDialTimeoutMsec = 0\nMaxRetries = 0\n[cache]\nmax_size = 0\n[content_store]\ntype = \"\"\n\
        containerd_address = \"\"\n[background_fetch]\ndrop_policy = \"\"\n\
        [pull_modes.parallel_pull_unpack]\nmax_concurrent_downloads_per_image = 0\n";
    assert_eq!(config(zero), Config::default());
}

#[test]
fn defaults_are_those_of_the_rest_of_the_project() {
    let config = Config::default();
    let client = client(&config);
    assert_eq!(client.timeouts, Timeouts::default());
    let mut retry = RetryPolicy::default();
    retry.unreachable_for = Duration::from_secs(45);
    assert_eq!(client.retry, retry);
    assert_eq!(client.hosts_dir, Some("/etc/containerd/certs.d".into()));
    assert!(client.hosts.is_empty());
    assert_eq!(client.read_retry, ClientConfig::default().read_retry);
    let settings = config.settings();
    assert_eq!(settings.pull.mount_timeout, Duration::from_secs(30));
    assert_eq!(settings.fetch.cache_size, 10 << 30);
    assert_eq!((settings.pull.v1, settings.pull.v2), (true, true));
    assert_eq!(config.content_store(), ContentStore::Soci);
    assert_eq!(config.metrics(), None);
    assert!(settings.layers.background && settings.check_overlay && !settings.layers.keep_cache);
    let parallel = &config.file.pull_modes.parallel_pull_unpack;
    let pair = |all, each| (limit(all), limit(each));
    let downloads = pair(parallel.max_concurrent_downloads, parallel.max_concurrent_downloads_per_image);
    assert_eq!(downloads, (None, Some(3)));
    let unpacks = pair(parallel.max_concurrent_unpacks, parallel.max_concurrent_unpacks_per_image);
    assert_eq!(unpacks, (None, Some(3)));
    assert_eq!(config.problems(), []);
}

#[test]
fn values_reach_the_daemon_in_their_own_types() {
    let config = config(
        r#"
        metrics_address = "/run/m.sock"
        metrics_network = "unix"
        max_concurrency = -5
        [http]
        RequestTimeoutMsec = 1500
        MaxRetries = -1
        [blob]
        fetching_timeout_sec = 9
        max_retries = 4
        [registry]
        config_path = ""
        [fuse]
        threads = 3
        [content_store]
        type = "containerd"
        containerd_address = "unix:///run/c.sock"
        [cri_keychain]
        enable_keychain = true
        [snapshotter]
        min_layer_size = 7
        max_ztoc_percent = 0
        "#,
    );
    assert_eq!(config.metrics(), Some(MetricsEndpoint::Unix("/run/m.sock".into())));
    let settings = config.settings();
    assert_eq!(settings.pull.parallel_layers, UNLIMITED);
    let common = client(&config);
    assert_eq!(common.timeouts.request, Duration::from_millis(1500));
    assert_eq!((common.retry.max_retries, common.hosts_dir), (0, None));
    assert_eq!(common.retry.unreachable_for, Duration::ZERO);
    let reads = &common.read_retry;
    assert_eq!((reads.max_retries, reads.max_elapsed), (4, Duration::from_secs(9)));
    assert_eq!(settings.trees.fuse_threads, 3);
    assert_eq!(config.content_store(), ContentStore::Containerd { address: "/run/c.sock".into() });
    assert_eq!(config.cri_keychain(), Some("/run/containerd/containerd.sock".into()));
    assert_eq!((settings.pull.min_layer_size, settings.pull.max_ztoc_percent), (7, None));
    let off = "metrics_address = \":9\"\nno_prometheus = true";
    assert_eq!(super::tests::config(off).metrics(), None);
}

#[test]
fn the_lower_limit_of_fetching_and_unpacking_holds() {
    let limits = |downloads, downloads_per_image, unpacks, unpacks_per_image| {
        let pull = config(&format!(
            "[pull_modes.parallel_pull_unpack]\nmax_concurrent_downloads = {downloads}\n\
             max_concurrent_downloads_per_image = {downloads_per_image}\nmax_concurrent_unpacks = {unpacks}\n\
             max_concurrent_unpacks_per_image = {unpacks_per_image}\n"
        ))
        .settings()
        .pull;
        (pull.parallel_unpacks, pull.all_parallel_unpacks)
    };
    assert_eq!(limits(-1, -1, -1, -1), (UNLIMITED, UNLIMITED));
    assert_eq!(limits(9, 3, -1, -1), (3, 9));
    assert_eq!(limits(9, 3, 7, 4), (3, 7));
    let usual = Config::default().settings().pull;
    assert_eq!((usual.parallel_unpacks, usual.all_parallel_unpacks), (3, UNLIMITED));
    // A semaphore takes it.
    assert_eq!(Semaphore::new(UNLIMITED).available_permits(), UNLIMITED);
}

#[test]
fn images_are_unpacked_without_an_index_too_if_all_are() {
    let pull = |text: &str| config(text).settings().pull;
    let table = "pull_modes.parallel_pull_unpack";
    for (text, always, without_index) in [
        (String::new(), false, false),
        (format!("{table}.enable = true"), true, true),
        (format!("{table}.experimental_parallel_pull_as_fallback = true"), false, true),
    ] {
        let pull = pull(&text);
        assert_eq!((pull.always_unpack, pull.unpack_without_index), (always, without_index), "{text}");
    }
}

#[test]
fn mirrors_become_hosts_of_the_client() {
    let config = config(
        r#"
        [[resolver.host."registry-1.docker.io".mirrors]]
        host = "https://mirror.example.com/hub"
        request_timeout_sec = 5
        [[resolver.host."registry-1.docker.io".mirrors]]
        host = "10.0.0.1:5000"
        [[resolver.host."registry-1.docker.io".mirrors]]
        host = "https://plain:5000"
        insecure = true
        request_timeout_sec = -1
        [[resolver.host."own:5000".mirrors]]
        host = "http://own:5000"
        insecure = true
        "#,
    );
    let hosts = client(&config).hosts;
    let hub = &hosts["docker.io"];
    let urls: Vec<_> = hub.mirrors.iter().map(|mirror| mirror.url.as_deref().unwrap()).collect();
    assert_eq!(urls, ["https://mirror.example.com/hub", "10.0.0.1:5000", "http://plain:5000"]);
    assert_eq!(hub.mirrors[0].response_timeout, Some(Duration::from_secs(5)));
    assert_eq!(hub.mirrors[1].response_timeout, None);
    assert!(hub.mirrors[2].response_timeout.unwrap() > Duration::from_secs(3600));
    assert_eq!(hub.server.url, None, "an insecure mirror says nothing about the registry");
    assert!(!hub.mirrors[0].capabilities.push && !hub.mirrors[0].capabilities.resolve);
    let own = &hosts["own:5000"];
    assert!(own.mirrors.is_empty());
    assert_eq!(own.server.url.as_deref(), Some("http://own:5000"));
    assert!(own.server.capabilities.push);
    registry::Client::new(client(&config)).unwrap();
}

#[test]
fn mirrors_that_cannot_work_are_errors_at_start_up() {
    for bad in [
        "htps://mirror",
        "http//mirror:5000",
        "https:/mirror",
        "https://",
        "",
        "a b",
        "m:99999",
        "ftp://m",
        "https://u:p@m",
    ] {
        let found = problems(&format!("[[resolver.host.\"r\".mirrors]]\nhost = \"{bad}\"\n"));
        assert!(
            found.len() == 1 && found[0].starts_with("Error resolver.host.\"r\".mirrors: "),
            "{bad}: {found:?}"
        );
    }
    for good in ["mirror:5000", "mirror", "https://mirror/v2", "http://10.1.2.3:80/x", "[::1]:5000"] {
        let found = problems(&format!("[[resolver.host.\"r\".mirrors]]\nhost = \"{good}\"\n"));
        assert!(found.is_empty(), "{good}: {found:?}");
    }
    let found = problems("[[resolver.host.\"https://r\".mirrors]]\nhost = \"m\"\n");
    assert!(found[0].contains("host or host:port"), "{found:?}");
    let found = problems(
        "[[resolver.host.\"docker.io\".mirrors]]\nhost = \"m\"\n[[resolver.host.\"index.docker.io\".mirrors]]\nhost = \"n\"",
    );
    assert!(found[0].starts_with("Error resolver.host: "), "{found:?}");
}

#[test]
fn limits_that_contradict_each_other_are_errors() {
    let table = "[pull_modes.parallel_pull_unpack]\n";
    for (text, errors) in [
        ("max_concurrent_downloads = 2", 1),
        ("max_concurrent_downloads = 3", 0),
        ("max_concurrent_downloads = 9\nmax_concurrent_downloads_per_image = -1", 1),
        ("max_concurrent_unpacks = 1\nmax_concurrent_unpacks_per_image = 2", 1),
    ] {
        let found = problems(&format!("{table}{text}"));
        assert_eq!(
            found.iter().filter(|found| found.starts_with("Error")).count(),
            errors,
            "{text}: {found:?}"
        );
    }
    let found = problems("pull_modes.soci_v1.enable = false\npull_modes.soci_v2.enable = false");
    assert_eq!(
        found,
        ["Warning pull_modes: neither soci_v1 nor soci_v2 is enabled: no image is read lazily"]
    );
}

#[test]
fn a_socket_that_nobody_listens_on_is_said_at_start_up_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("containerd.sock");
    let text = format!(
        "[content_store]\ntype = \"containerd\"\ncontainerd_address = \"{0}\"\n\
         [cri_keychain]\nenable_keychain = true\nimage_service_path = \"{0}\"\n",
        path.display()
    );
    let found = problems(&text);
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("Warning content_store.containerd_address: there is no socket"), "{found:?}");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(problems(&text).is_empty());
    // A queue that is full, because nobody accepts, does not make it wait.
    rustix::net::listen(&listener, 0).unwrap();
    for _ in 0..10 {
        assert!(problems(&text).is_empty());
    }
    drop(listener);
    assert!(problems(&text)[0].contains("nobody listens on"));
    // Too long for a socket address.
    let long =
        format!("[content_store]\ntype = \"containerd\"\ncontainerd_address = \"/{}\"\n", "x".repeat(200));
    assert!(problems(&long)[0].contains("cannot connect"));
}

#[test]
fn addresses_of_metrics_are_looked_at() {
    for good in ["127.0.0.1:9000", ":9000", "[::1]:9000", "metrics.example.com:9000", "localhost:0"] {
        assert!(problems(&format!("metrics_address = \"{good}\"")).is_empty(), "{good}");
    }
    for bad in ["9000", "localhost", "/run/x.sock", "h:99999", "a b:1", "[::1:9000"] {
        let found = problems(&format!("metrics_address = \"{bad}\""));
        assert!(found.len() == 1 && found[0].starts_with("Error metrics_address"), "{bad}: {found:?}");
    }
    assert_eq!(problems("metrics_network = \"unix\"\nmetrics_address = \"x.sock\"").len(), 1);
    assert_eq!(problems("metrics_address = \":1\"\nno_prometheus = true").len(), 1);
}

#[test]
fn files_that_are_needed_are_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let built_in = crate::daemon::keychain::kubernetes::BUILT_IN;
    let found = problems(&format!(
        "kubeconfig_keychain.enable_keychain = true\nkubeconfig_keychain.kubeconfig_path = \"{0}\"\nregistry.config_path = \"{0}\"",
        missing.display()
    ));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|found| found.starts_with("Warning") || !built_in));

    // A file for the same registry is not used.
    let hosts = directory.path().join("r");
    std::fs::create_dir(&hosts).unwrap();
    let text = format!(
        "registry.config_path = \"{}\"\n[[resolver.host.r.mirrors]]\nhost = \"m\"\n",
        directory.path().display()
    );
    assert!(problems(&text)[0].contains("is not used"));
    std::fs::write(hosts.join("hosts.toml"), "server = 3\n").unwrap();
    let found = problems(&text);
    assert!(
        found[0].starts_with("Error registry.config_path: ") && found[0].contains("hosts.toml"),
        "{found:?}"
    );
}

#[test]
fn an_index_is_chosen_by_reference_or_by_repository() {
    let (one, other) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
    let text = format!(
        "[pull_modes.index.\"r.example/app:v1\"]\ndigest = \"{one}\"\n[pull_modes.index.\"r.example/app\"]\ndigest = \
         \"{other}\"\n[pull_modes.index.redis]\ndigest = \"{one}\"\n"
    );
    let chosen = parse(&text).0.settings().pull.chosen_indexes;
    let of = |image: &str| chosen.of(&image.parse().unwrap()).map(ToString::to_string);
    assert_eq!(of("r.example/app:v1"), Some(one.clone()));
    assert_eq!(of("r.example/app:v2"), Some(other.clone()));
    assert_eq!(of("docker.io/library/redis:7"), Some(one));
    assert_eq!(of("r.example/other:v1"), None);
    let found = problems("[pull_modes.index.\"not a name\"]\ndigest = \"sha256:12\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().all(|problem| problem.starts_with("Error pull_modes.index.\"not a name\": ")),
        "{found:?}"
    );
}

#[test]
fn a_missing_file_is_fine_only_if_nobody_named_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let error = Config::load(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("cannot read the configuration") && error.contains("config.toml"), "{error}");
    std::fs::write(&path, "debug = true\ncolour = 1\n").unwrap();
    let loaded = Config::load(Some(&path)).unwrap();
    assert!(loaded.config.debug());
    assert_eq!((loaded.path.as_deref(), loaded.notes.len()), (Some(path.as_path()), 1));
    std::fs::write(&path, "debug = 1\n").unwrap();
    let error = Config::load(Some(&path)).unwrap_err().to_string();
    assert!(error.ends_with("config.toml, line 1: debug = 1: expected true or false"), "{error}");
    std::fs::write(&path, [0xff]).unwrap();
    Config::load(Some(&path)).unwrap_err();
    std::fs::write(&path, " ".repeat(2 << 20)).unwrap();
    assert!(Config::load(Some(&path)).unwrap_err().to_string().contains("longer than"));
}

/// The rows of `docs/configuration.md` are made of the list of keys.
#[test]
fn the_documentation_has_every_key_with_its_default_and_meaning() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let document = std::fs::read_to_string(path).unwrap();
    let defaults = render::defaults();
    let mut missing = String::new();
    let mut table = None;
    for key in KEYS.iter() {
        let default = render::lookup(&defaults, key).map_or_else(String::new, |value| format!("`{value}`"));
        let row = format!("| `{}` | {default} | {} |", key.name, render::explain(key));
        let place = key.table.replace('*', "NAME");
        let heading = match key.table {
            "" => "### Top of the file".to_owned(),
            list if LISTS.contains(&list) => format!("### `[[{place}]]`"),
            _ => format!("### `[{place}]`"),
        };
        let section = document.split_once(&format!("{heading}\n")).map_or("", |(_, after)| after);
        let section = section.split("\n#").next().unwrap_or_default();
        if !section.lines().any(|line| line == row) {
            if table != Some(key.table) {
                missing.push_str(&format!("\n{heading}\n\n| key | default | meaning |\n|---|---|---|\n"));
                table = Some(key.table);
            }
            missing.push_str(&format!("{row}\n"));
        }
    }
    assert!(missing.is_empty(), "rows that are missing:\n{missing}");
}
