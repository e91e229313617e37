use super::*;
use crate::daemon::node::containerd_config::{ROOT, SOCKET, containerd_config};

/// What the doctor says of a configuration, `[0]` being its first line.
fn lines(version: &str, text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let version: ContainerdVersion = version.parse().unwrap();
    let facts = Facts {
        version,
        source: Ok("assumed".to_owned()),
        file: ContainerdFile::load(&path, version),
        plugins: Err(ContainerdError::Invalid("none".to_owned())),
        assumed: true,
    };
    let mut report = Report::default();
    let own = Own { socket: Path::new(SOCKET), root: Path::new(ROOT), snapshotter: "soci" };
    judge(&facts, own, &mut report);
    report.to_string().lines().map(str::to_owned).collect()
}

fn first(version: &str, text: &str) -> String {
    lines(version, text).remove(0)
}

fn good(version: &str) -> String {
    containerd_config(version.parse().unwrap(), None, Path::new(SOCKET), Path::new(ROOT)).unwrap()
}

/// `text` with a line less, which must be there.
fn without(text: &str, line: &str) -> String {
    assert!(text.lines().any(|own| own.trim() == line), "{line}");
    text.lines().filter(|own| own.trim() != line).map(|line| format!("{line}\n")).collect()
}

const VERSIONS: [&str; 7] = ["1.6.20", "1.7.28", "2.0.7", "2.1.5", "2.2.6", "2.3.7", "2.4.2"];

#[test]
fn the_documented_configuration_of_every_version_is_well() {
    for version in VERSIONS {
        assert!(
            first(version, &good(version)).starts_with("all is well"),
            "{version}: {:?}",
            lines(version, &good(version))
        );
    }
}

#[test]
fn the_first_line_names_a_wrong_socket_in_containerds_plugin() {
    for version in VERSIONS {
        let line = first(version, &good(version).replace(SOCKET, "/run/other.sock"));
        assert!(
            line.starts_with("problem: containerd's plugin has the wrong socket") && line.contains(SOCKET),
            "{line}"
        );
        let url = good(version).replace(SOCKET, &format!("unix://{SOCKET}"));
        assert!(first(version, &url).starts_with("all is well"));
    }
}

#[test]
fn the_first_line_names_a_missing_unpack_config() {
    for version in ["2.0.7", "2.1.5", "2.3.7"] {
        let text = good(version);
        let entry = text.rfind("[[plugins.").unwrap();
        let end = text[entry..].find("\n\n").unwrap() + entry;
        let line = first(version, &[&text[..entry], &text[end..]].concat());
        assert!(line.starts_with("problem: unpack_config for \"soci\" is missing"), "{line}");
        // The plugin's section alone, which was the documented configuration.
        let alone = "version = 3\n[proxy_plugins.soci]\ntype = \"snapshot\"\naddress = \"/run/soci-snapshotter-grpc/\
                     soci-snapshotter-grpc.sock\"\ncapabilities = [\"remap-ids\"]\n[proxy_plugins.soci.exports]\n\
                     enable_remote_snapshot_annotations = \"true\"\n";
        assert!(first(version, alone).contains("unpack_config"));
    }
}

#[test]
fn the_first_line_names_snapshot_annotations_that_are_off_for_cri() {
    for version in VERSIONS {
        let text = good(version)
            .replace("disable_snapshot_annotations = false", "disable_snapshot_annotations = true");
        let line = first(version, &text);
        assert!(line.starts_with("problem: snapshot annotations are off for CRI"), "{version}: {line}");
    }
    // EKS: the transfer service is not used, so what it passes along does not matter.
    let text = without(
        &without(&good("2.3.7"), "disable_snapshot_annotations = false"),
        "use_local_image_pull = true",
    );
    assert!(first("2.3.7", &text).starts_with("all is well"));
    let eks = text.replace(
        "[plugins.\"io.containerd.cri.v1.images\"]",
        "[plugins.\"io.containerd.cri.v1.images\"]\ndiscard_unpacked_layers = true",
    );
    assert!(first("2.3.7", &eks).contains("discard_unpacked_layers keeps CRI from the transfer service"));
}

#[test]
fn the_first_line_names_remote_annotations_that_are_off() {
    let setting = "enable_remote_snapshot_annotations = \"true\"";
    for version in ["2.1.5", "2.2.6", "2.3.7"] {
        // As a boolean, it does not do either.
        for text in [without(&good(version), setting), good(version).replace("= \"true\"", "= true")] {
            let line = first(version, &text);
            assert!(line.starts_with("problem: remote snapshot annotations are off"), "{version}: {line}");
        }
    }
}

#[test]
fn a_configuration_of_another_version_of_containerd_is_named() {
    let line = first("1.7.28", &good("2.1"));
    assert!(
        line.starts_with("problem: containerd 1.7.28 does not start with") && line.contains("version 3"),
        "{line}"
    );
    assert!(first("2.2.0", &good("2.3")).contains("does not start with"));
    // containerd 2 silently drops what the file for 1.x says of CRI.
    let all = lines("2.3.7", &good("1.7"));
    assert!(all.iter().any(|line| line.contains("ignores the snapshotter of CRI")), "{all:?}");
    assert!(first("1.7.28", "").contains("has no [proxy_plugins.soci]"));
}
