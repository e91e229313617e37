//! `soci-snapshotter-grpc config`, and what the daemon makes of a bad configuration; containerd's, as the
//! program writes it and the documents quote it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use fuse_snapshotter::daemon::config::Config;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc"));
    for variable in ["CONFIG", "LOG_LEVEL", "ADDRESS", "ROOT"] {
        command.env_remove(format!("SOCI_SNAPSHOTTER_{variable}"));
    }
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn dump(file: &Path) -> Output {
    program().args(["config", "dump", "--config"]).arg(file).output().unwrap()
}

#[test]
fn the_default_configuration_can_be_written_to_a_file_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let output = program().args(["config", "default"]).output().unwrap();
    assert!(output.status.success());
    std::fs::write(&path, &output.stdout).unwrap();
    let loaded = Config::load(Some(&path)).unwrap();
    assert_eq!((loaded.config, loaded.notes), (Config::default(), Vec::new()));
    let output = dump(&path);
    assert!(output.status.success());
    assert_eq!((text(&output.stdout), text(&output.stderr)), (&*Config::default().to_toml().unwrap(), ""));
}

#[test]
fn dump_prints_what_is_in_effect_and_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(
        &path,
        "Debug = true\ncolour = 1\nmetadata_store = \"db-multi\"\n[[resolver.host.r.mirrors]]\nhost = \"htps://m\"\n",
    )
    .unwrap();
    // By the environment, too, and with the flag before the command.
    let before = program().arg("--config").arg(&path).args(["config", "dump"]).output().unwrap();
    let environment =
        program().env("SOCI_SNAPSHOTTER_CONFIG", &path).args(["config", "dump"]).output().unwrap();
    for output in [dump(&path), before, environment] {
        assert!(output.status.success());
        let dumped = directory.path().join("dumped.toml");
        std::fs::write(&dumped, &output.stdout).unwrap();
        assert_eq!(Config::load(Some(&dumped)).unwrap().config, Config::load(Some(&path)).unwrap().config);
        let lines: Vec<_> = text(&output.stderr).lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], format!("warning: {}, line 2: unknown key colour", path.display()));
        assert!(lines[1].starts_with("note: ") && lines[1].contains("line 3: metadata_store has no effect"));
        assert!(lines[2].starts_with("error: resolver.host.\"r\".mirrors: "), "{lines:?}");
    }
}

#[test]
fn a_bad_or_missing_configuration_stops_the_daemon_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let root = directory.path().join("root");
    let start = || {
        let output = program().arg("--config").arg(&path).arg("--root").arg(&root).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr).to_owned()
    };
    assert!(start().contains("cannot read the configuration"));
    std::fs::write(&path, "[http]\nMaxRetries = true\n").unwrap();
    assert!(start().contains("config.toml, line 2: http.MaxRetries = true: expected a whole number"));
    std::fs::write(&path, "[[resolver.host.r.mirrors]]\nhost = \"htps://m\"\n").unwrap();
    assert!(start().contains("the configuration cannot work: resolver.host.\"r\".mirrors: "));
    std::fs::write(&path, "colour = 1\nmetrics_address = \"x\"\n").unwrap();
    let said = start();
    // Standard error is no terminal here, so the log is JSON.
    let warning = said.lines().find(|line| line.contains("colour")).unwrap();
    let warning: serde_json::Value = serde_json::from_str(warning).unwrap();
    assert_eq!(warning["level"], "warning");
    assert_eq!(warning["msg"], "unknown key in the configuration");
    assert_eq!((&warning["key"], &warning["line"]), (&"colour".into(), &1.into()));
    assert!(!root.exists());
}

#[test]
fn log_levels_are_those_of_the_reference() {
    for level in ["error", "warn", "warning", "info", "debug", "trace", "INFO", "fatal"] {
        let output = program().args(["--log-level", level, "config", "default"]).output().unwrap();
        assert!(output.status.success(), "{level}");
    }
    let output = program().args(["--log-level", "loud", "config", "default"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected error, warn, info, debug or trace"));
}

/// A file of the project.
fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn containerd(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

#[test]
fn config_containerd_prints_the_file_of_that_version_with_the_daemons_socket_and_root() {
    for (version, name) in
        [("1.6.20", "1.6"), ("v1.7.28", "1.6"), ("2.0", "2.0"), ("2.2.6", "2.1"), ("2.4.2", "2.3")]
    {
        let output = containerd(&["config", "containerd", "--version", version]);
        assert_eq!(text(&output.stdout), file(&format!("deploy/containerd/config-{name}.toml")), "{version}");
        assert_eq!(text(&output.stderr), "");
    }
    let given = ["--address", "unix:///run/my.sock", "--root", "/mnt/my root", "config", "containerd"];
    let output = containerd(&[&given[..], &["--version", "2.3", "--config-version", "3"]].concat());
    let parsed: toml::Table = text(&output.stdout).parse().unwrap();
    let soci = &parsed["proxy_plugins"]["soci"];
    assert_eq!(soci["address"].as_str(), Some("/run/my.sock"));
    assert_eq!(soci["exports"]["root"].as_str(), Some("/mnt/my root"));
    assert_eq!(parsed["version"].as_integer(), Some(3));
    let socket = "fd:// of systemd is the usual socket";
    let output = containerd(&["--address", "fd://", "config", "containerd", "--version", "1.7"]);
    assert!(
        text(&output.stdout).contains("\"/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock\""),
        "{socket}"
    );
    for (arguments, status, words) in [
        (&["--version", "1.5"][..], 1, "older than 1.6"),
        (&["--version", "2.0", "--config-version", "4"], 1, "has version 3, not 4"),
        (&["--version", "new"], 2, "such as 1.7"),
    ] {
        let output = containerd(&[&["config", "containerd"], arguments].concat());
        assert!(output.status.code() == Some(status) && output.stdout.is_empty());
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

/// Without a version it asks the containerd that runs, or else the program, and says so.
#[test]
fn config_containerd_says_which_containerd_it_is_for() {
    if !testdata::need::available(&[testdata::need::Need::Program("containerd", "containerd")]) {
        return;
    }
    let none = ["config", "containerd", "--containerd-address", "/nowhere/c.sock"];
    let output = containerd(&none);
    assert!(text(&output.stderr).starts_with("note: for containerd 1.6.20: `containerd --version` says"));
    assert_eq!(text(&output.stdout), file("deploy/containerd/config-1.6.toml"));
    let output = program().args(none).env("PATH", "/nowhere").output().unwrap();
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("say it by --version"));
}

#[test]
fn containerd_understands_the_configuration_that_is_written_for_it() {
    if !testdata::need::available(&[testdata::need::Need::Program("containerd", "containerd")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let none = ["config", "containerd", "--containerd-address", "/nowhere/c.sock"];
    std::fs::write(&path, containerd(&none).stdout).unwrap();
    let output =
        Command::new("containerd").arg("--config").arg(&path).args(["config", "dump"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let dump: toml::Table = text(&output.stdout).parse().unwrap();
    let cri = &dump["plugins"]["io.containerd.grpc.v1.cri"]["containerd"];
    assert_eq!(cri["snapshotter"].as_str(), Some("soci"));
    assert_eq!(cri["disable_snapshot_annotations"].as_bool(), Some(false));
    assert_eq!(dump["proxy_plugins"]["soci"]["type"].as_str(), Some("snapshot"));
}

/// The block after a line with this marker, without its indentation.
fn quoted(document: &str, marker: &str) -> String {
    let text = file(document);
    let (_, rest) = text.split_once(marker).unwrap_or_else(|| unreachable!("{document} quotes no {marker}"));
    let mut lines = rest.lines().skip_while(|line| !line.trim_start().starts_with("```")).skip(1);
    let block: Vec<_> = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
    block.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn documents_quote_containerds_configuration_as_it_is() {
    for version in ["1.6", "2.3"] {
        let path = format!("deploy/containerd/config-{version}.toml");
        let marker = format!("<!-- {path} -->");
        assert_eq!(quoted("docs/install.md", &marker), file(&path), "{path}");
    }
    // Inside of another file, and without comments.
    let yaml =
        quoted("docs/kubernetes.md", "<!-- deploy/containerd/config-2.1.toml, without its comments -->");
    let (_, quote) = yaml.split_once("config: |\n").unwrap();
    let parse = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(parse(quote), parse(&file("deploy/containerd/config-2.1.toml")));
    for document in ["docs/install.md", "README.md", "docs/kubernetes.md", "docs/troubleshooting.md"] {
        assert!(file(document).contains("soci-snapshotter-grpc config containerd"), "{document}");
    }
}
