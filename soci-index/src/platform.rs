//! Platforms: `os/arch[/variant]`, normalised and compared as containerd does.
//!
//! Images name the same platform in several ways (`x86_64`, `aarch64`, `arm64/v8`, `arm`), so two platforms are compared
//! only after normalisation, which [`Platform::new`] does. The match is strict: an `arm/v7` host does not take an `arm/v6` image here,
//! because an index belongs to exactly one image manifest.

use std::fmt;
use std::str::FromStr;

/// A platform by its canonical names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
    /// Version of the operating system; in practice Windows only.
    os_version: String,
    /// The variant that containerd's library would write into a descriptor, where it is not the canonical one. It depends
    /// on how the platform was written: `linux/arm64/v8` keeps its variant, `linux/arm` gets none.
    written_variant: Option<&'static str>,
}

/// A platform that is not `os/arch[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/arch[/variant], for example linux/arm64")]
pub struct ParsePlatformError(String);

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "loongarch64" => "loong64",
            "x86" => "386",
            architecture => architecture,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// The host's platform as containerd's library writes it into descriptors: with a variant where the architecture has
    /// some, unlike the canonical form.
    pub fn host_descriptor() -> registry::Platform {
        let host = Self::host();
        let written_variant = (host.architecture == "arm64").then_some("v8");
        Self { written_variant, ..host }.to_descriptor()
    }

    /// The platform as descriptors have it.
    pub fn to_descriptor(&self) -> registry::Platform {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        registry::Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: given(&self.os_version),
            os_features: Vec::new(),
            variant: given(self.written_variant.unwrap_or(&self.variant)),
        }
    }

    /// The platform with these names, normalised.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64", _) | ("amd64", "v1") => ("amd64", ""),
            ("aarch64" | "arm64", "8" | "v8" | "8.0" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self {
            os,
            architecture: architecture.into(),
            variant: variant.into(),
            os_version: String::new(),
            written_variant: None,
        }
    }

    /// Whether both are the same platform. A version of the operating system counts only when both name one.
    pub fn matches(&self, other: &Self) -> bool {
        let versions_agree =
            self.os_version.is_empty() || other.os_version.is_empty() || self.os_version == other.os_version;
        self.os == other.os
            && self.architecture == other.architecture
            && self.variant == other.variant
            && versions_agree
    }

    /// Whether both have the same system and architecture, whatever the variants are.
    pub(crate) fn has_architecture_of(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// Whether this is the placeholder that BuildKit gives to attestation manifests (`unknown/unknown`).
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// Whether neither system nor architecture is given.
    pub fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }
}

impl From<&registry::Platform> for Platform {
    fn from(platform: &registry::Platform) -> Self {
        let variant = platform.variant.as_deref().unwrap_or_default();
        Self {
            os_version: platform.os_version.clone().unwrap_or_default(),
            ..Self::new(&platform.os, &platform.architecture, variant)
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Parses `os/arch[/variant]`, or one of `os` and `arch` alone with the other taken from the host.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePlatformError(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| -> bool {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !parts.iter().all(plain) {
            return Err(error());
        }
        let host = Self::host();
        let (os, architecture, variant) = match parts[..] {
            [one] if is_known_os(one) => (one, host.architecture.as_str(), host.variant.as_str()),
            [one] if is_known_architecture(one) => (host.os.as_str(), one, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(error()),
        };
        let platform = Self::new(os, architecture, variant);
        let written_variant = match (platform.architecture.as_str(), platform.variant.as_str(), parts.len()) {
            ("arm64", "", 3) => Some("v8"),
            ("arm", "v7", 1 | 2) => Some(""),
            _ => None,
        };
        Ok(Self { written_variant, ..platform })
    }
}

fn is_known_os(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "linux"
            | "windows"
            | "darwin"
            | "macos"
            | "freebsd"
            | "netbsd"
            | "openbsd"
            | "solaris"
            | "illumos"
            | "wasip1"
    )
}

fn is_known_architecture(text: &str) -> bool {
    let architecture = text.to_ascii_lowercase();
    matches!(
        architecture.as_str(),
        "386" | "i386" | "amd64" | "x86_64" | "x86-64" | "arm" | "armhf" | "armel" | "arm64" | "aarch64"
    ) || matches!(
        architecture.as_str(),
        "ppc64" | "ppc64le" | "s390x" | "riscv64" | "loong64" | "mips64" | "mips64le" | "wasm"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised_as_by_containerd() {
        for (given, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/arm/v8", "linux/arm/v8"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(parse(given).to_string(), expected, "{given}");
        }
    }

    #[test]
    fn descriptors_say_what_containerds_library_would() {
        for (given, variant) in [
            ("linux/amd64", None),
            ("linux/arm64", None),
            ("linux/arm64/v8", Some("v8")),
            ("linux/aarch64/8", Some("v8")),
            ("linux/arm64/v9", Some("v9")),
            ("linux/arm", None),
            ("arm", None),
            ("linux/arm/v7", Some("v7")),
            ("linux/arm/6", Some("v6")),
            ("linux/armel", Some("v6")),
        ] {
            assert_eq!(parse(given).to_descriptor().variant.as_deref(), variant, "{given}");
        }
    }

    #[test]
    fn one_part_is_completed_by_the_host() {
        assert_eq!(parse("linux").architecture, Platform::host().architecture);
        assert_eq!(parse("s390x").os, Platform::host().os);
    }

    #[test]
    fn malformed_platforms_are_refused() {
        for bad in
            ["", "/", "linux/", "/amd64", "linux//v8", "a/b/c/d", "nonsense", "linux/amd 64", "linux/é"]
        {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn matching_is_strict_after_normalisation() {
        let arm64 = Platform::new("linux", "arm64", "v8");
        assert!(arm64.matches(&parse("linux/aarch64")));
        assert!(!arm64.matches(&parse("linux/arm64/v9")));
        assert!(!parse("linux/arm/v6").matches(&parse("linux/arm/v7")));
        let windows = Platform { os_version: "10.0.1".into(), ..parse("windows/amd64") };
        assert!(windows.matches(&parse("windows/amd64")));
        assert!(!windows.matches(&Platform { os_version: "10.0.2".into(), ..windows.clone() }));
    }
}
