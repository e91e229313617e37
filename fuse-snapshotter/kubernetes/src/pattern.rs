//! Keys of Kubernetes' pull secrets and the images they are for.
//!
//! The rules are kubelet's (<https://kubernetes.io/docs/concepts/containers/images/#config-json>): the host is matched
//! label by label, each of which may hold `*` and `?`; the port must be the same; the path is a prefix.

use registry::same_registry;

/// Longer than any host and repository together.
const MAX_KEY: usize = 1024;

/// A key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// In lower case.
    host: String,
    port: String,
    /// Empty, or begins with `/`.
    path: String,
    wildcards: usize,
}

/// How well a key fits: more is better.
pub(crate) type Rank = (usize, std::cmp::Reverse<usize>);

impl Pattern {
    /// From `host[:port][/path]` or a URL. `None` if it can match nothing.
    pub(crate) fn new(key: &str) -> Option<Self> {
        if key.len() > MAX_KEY {
            return None;
        }
        let bare = key.trim().split_once("://").map_or(key.trim(), |(_, rest)| rest);
        let at = bare.find('/').unwrap_or(bare.len());
        let (authority, path) = (bare.get(..at)?, bare.get(at..)?);
        // `https://index.docker.io/v1/` is Docker's way to write a host.
        let path = match path {
            "/v1" | "/v2" | "/" => "",
            _ => path
                .strip_prefix("/v1")
                .or(path.strip_prefix("/v2"))
                .filter(|p| p.starts_with('/'))
                .unwrap_or(path),
        };
        let path = if path == "/" { "" } else { path };
        let (host, port) = split_port(authority);
        if host.is_empty() {
            return None;
        }
        let wildcards = host.matches(['*', '?']).count();
        let (host, port) = (host.to_ascii_lowercase(), port.to_owned());
        Some(Self { host, port, path: path.to_owned(), wildcards })
    }

    /// Whether this is a key for `repository` of the registry `host` (`host[:port]`).
    pub(crate) fn rank(&self, host: &str, repository: &str) -> Option<Rank> {
        let hub = ["index.docker.io", "docker.io"];
        let aliases = hub.into_iter().filter(|_| same_registry(host, "docker.io"));
        let host_fits = std::iter::once(host).chain(aliases).any(|host| self.matches_host(host));
        let path_fits = match self.path.strip_prefix('/') {
            Some(prefix) => repository.starts_with(prefix),
            None => true,
        };
        (host_fits && path_fits).then_some((self.path.len(), std::cmp::Reverse(self.wildcards)))
    }

    fn matches_host(&self, host: &str) -> bool {
        let (name, port) = split_port(host);
        if port != self.port {
            return false;
        }
        let name = name.to_ascii_lowercase();
        let (mut patterns, mut labels) = (self.host.split('.'), name.split('.'));
        loop {
            match (patterns.next(), labels.next()) {
                (Some(pattern), Some(label)) if glob(pattern.as_bytes(), label.as_bytes()) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

/// Brackets of IPv6 addresses stay with the host.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ => (authority, ""),
    }
}

/// `*` is any run of bytes, `?` any one. Goes back to the last `*` only, so its time is bounded by the product of both
/// lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(expected) if *expected == b'?' || expected == byte => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn fits(key: &str, host: &str, repository: &str) -> bool {
        Pattern::new(key).is_some_and(|pattern| pattern.rank(host, repository).is_some())
    }

    #[test]
    fn keys_as_kubelet_reads_them() {
        for key in
            ["q.io", "https://q.io", "http://q.io/", "q.io/v1/", "https://Q.io/v2/", "*.io", "q.*", "?.io"]
        {
            assert!(fits(key, "q.io", "team/app"), "{key}");
            assert!(!fits(key, "q.io:5000", "team/app"), "{key}");
            assert!(!fits(key, "x.q.io", "team/app"), "{key}");
        }
        assert!(fits("https://q.io/v1/team", "q.io", "team/app"));
        assert!(fits("q.io/team", "q.io", "teammate/app"));
        assert!(!fits("q.io/team/", "q.io", "teammate/app"));
        assert!(!fits("q.io/team/app/x", "q.io", "team/app"));
        assert!(fits("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", "a"));
        assert!(!fits("*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", "a"));
        assert!(fits("*.q.io:5000", "a.q.io:5000", "x"));
        assert!(fits("[::1]:5000", "[::1]:5000", "x") && !fits("[::1]", "[::1]:5000", "x"));
        for nothing in ["", "/", "https://", "://"] {
            assert!(!fits(nothing, "", "x") && !fits(nothing, "q.io", "x"), "{nothing}");
        }
        assert!(Pattern::new(&"x".repeat(MAX_KEY + 1)).is_none());
    }

    #[test]
    fn docker_hub_has_several_names() {
        for key in
            ["https://index.docker.io/v1/", "docker.io", "index.docker.io/library", "registry-1.docker.io"]
        {
            assert!(fits(key, "registry-1.docker.io", "library/redis"), "{key}");
            assert!(!fits(key, "q.io", "library/redis"), "{key}");
        }
    }

    #[test]
    fn longer_paths_and_fewer_wildcards_rank_higher() {
        let keys = ["*.io", "q.io", "q.io/team", "q.io/team/app"];
        let ranks = keys.map(|key| Pattern::new(key).unwrap().rank("q.io", "team/app").unwrap());
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "axbxbc", true),
            ("a*b", "abc", false),
            ("?", "", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let (pattern, text) = ("*a".repeat(400), "a".repeat(399));
        assert!(!glob(pattern.as_bytes(), text.as_bytes()));
    }
}
