//! `soci-snapshotter-grpc config`, and what the daemon makes of a bad configuration.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use fuse_snapshotter::config::Config;

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
