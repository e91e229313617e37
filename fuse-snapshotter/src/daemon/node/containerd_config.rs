//! The configuration of containerd that works with the snapshotter for every client, for each version of containerd.
//!
//! The texts are the files of `deploy/containerd`, which the documents quote and the tests run with.

use std::path::Path;

use super::version::ContainerdVersion;

/// The texts, each with the first version that it is for, newest first.
const TEXTS: [(ContainerdVersion, &str); 4] = [
    (ContainerdVersion::new(2, 3), include_str!("../../../../deploy/containerd/config-2.3.toml")),
    (ContainerdVersion::new(2, 1), include_str!("../../../../deploy/containerd/config-2.1.toml")),
    (ContainerdVersion::new(2, 0), include_str!("../../../../deploy/containerd/config-2.0.toml")),
    (ContainerdVersion::new(1, 6), include_str!("../../../../deploy/containerd/config-1.6.toml")),
];

/// The daemon's socket in the texts.
pub const SOCKET: &str = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock";
/// The daemon's root directory in the texts.
pub const ROOT: &str = "/var/lib/soci-snapshotter-grpc";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdConfigError {
    /// containerd is too old.
    #[error("containerd {0} is older than 1.6, the first version that the snapshotter works with")]
    TooOld(ContainerdVersion),
    /// It does not read such a file.
    #[error("a configuration for containerd {containerd} has version {usual}{}, not {wanted}", if *usual == 4 { " or 3" } else { "" })]
    ConfigVersion {
        /// The version of containerd.
        containerd: ContainerdVersion,
        /// The version that its text has.
        usual: i64,
        /// The version asked for.
        wanted: i64,
    },
    /// A path that cannot be written into TOML, or not into an address.
    #[error("{0:?} cannot be written into a configuration: it must be UTF-8 without control characters")]
    Path(std::path::PathBuf),
}

/// The complete configuration for this version of containerd, with the daemon's `socket` and `root` in it.
/// `config_version` is the version that the file is to have, where there is a choice.
///
/// # Errors
/// See [`ContainerdConfigError`].
pub fn containerd_config(
    containerd: ContainerdVersion,
    config_version: Option<i64>,
    socket: &Path,
    root: &Path,
) -> Result<String, ContainerdConfigError> {
    let text = TEXTS.iter().find(|(first, _)| *first <= containerd).map(|(_, text)| *text);
    let mut text = text.ok_or(ContainerdConfigError::TooOld(containerd))?.to_owned();
    let usual = containerd.config_version();
    match config_version {
        Some(3) if usual == 4 => text = text.replace("\nversion = 4\n", "\nversion = 3\n"),
        Some(wanted) if wanted != usual => {
            return Err(ContainerdConfigError::ConfigVersion { containerd, usual, wanted });
        }
        _ => {}
    }
    for (usual, given) in [(SOCKET, socket), (ROOT, root)] {
        text = text.replace(&format!("\"{usual}\""), &quoted(given)?);
    }
    Ok(text)
}

/// A TOML string.
fn quoted(path: &Path) -> Result<String, ContainerdConfigError> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| ContainerdConfigError::Path(path.to_owned()))?;
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn text(version: &str) -> String {
        containerd_config(version.parse().unwrap(), None, Path::new(SOCKET), Path::new(ROOT)).unwrap()
    }

    #[test]
    fn every_version_of_containerd_gets_a_configuration_of_a_version_that_it_reads() {
        for version in ["1.6.20", "1.7.0", "2.0.7", "2.1", "2.2.6", "2.3.0", "2.4.2", "3.0"] {
            let parsed: toml::Table = text(version).parse().unwrap();
            let expected = version.parse::<ContainerdVersion>().unwrap().config_version();
            assert_eq!(parsed["version"].as_integer(), Some(expected), "{version}");
        }
        let old = containerd_config("1.5.9".parse().unwrap(), None, Path::new(SOCKET), Path::new(ROOT));
        assert!(matches!(old, Err(ContainerdConfigError::TooOld(_))));
    }

    #[test]
    fn from_2_3_on_the_file_may_have_version_3_as_well_and_nothing_else_changes() {
        let with = |version: &str, config| {
            containerd_config(version.parse().unwrap(), Some(config), Path::new(SOCKET), Path::new(ROOT))
        };
        let (mut three, mut four): (toml::Table, toml::Table) =
            (with("2.3", 3).unwrap().parse().unwrap(), with("2.3", 4).unwrap().parse().unwrap());
        assert_eq!(three.remove("version").unwrap().as_integer(), Some(3));
        assert_eq!(four.remove("version").unwrap().as_integer(), Some(4));
        assert_eq!(three, four);
        for (version, config) in [("1.7", 3), ("2.0", 2), ("2.2", 4), ("2.3", 2)] {
            assert!(with(version, config).is_err(), "{version} {config}");
        }
    }

    #[test]
    fn the_daemons_own_socket_and_root_are_written_whatever_they_are_called() {
        let (socket, root) = (Path::new("/a \"b\"\\c/s"), Path::new("/data/é"));
        let text = containerd_config(ContainerdVersion::new(2, 3), None, socket, root).unwrap();
        let parsed: toml::Table = text.parse().unwrap();
        let soci = &parsed["proxy_plugins"]["soci"];
        assert_eq!(soci["address"].as_str(), socket.to_str());
        assert_eq!(soci["exports"]["root"].as_str(), root.to_str());
        let hostile = containerd_config(ContainerdVersion::new(2, 3), None, Path::new("/a\nb"), root);
        assert!(matches!(hostile, Err(ContainerdConfigError::Path(_))));
    }
}
