//! What names of registries, repositories and tags look like.

/// The name that stands for Docker Hub in references.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// The host that serves Docker Hub's registry API.
pub(crate) const DOCKER_HUB_API: &str = "registry-1.docker.io";

pub(crate) fn api_host(host: &str) -> &str {
    if matches!(host, DOCKER_HUB | "index.docker.io") { DOCKER_HUB_API } else { host }
}

/// The largest host and name that are accepted, in bytes (DNS; the reference grammar).
pub(super) const MAX_LEN: usize = 255;

pub(super) fn valid_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n != 0));
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && !name.starts_with(['.', '-'])
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    host.len() <= MAX_LEN && name_ok && port_ok
}

/// Divides `host[:port]`; brackets of IPv6 addresses stay with the host.
pub(crate) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

pub(super) fn valid_name(name: &str) -> bool {
    name.len() <= MAX_LEN
        && name.split('/').all(|part| {
            let bytes = part.as_bytes();
            let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            bytes.first().is_some_and(alnum)
                && bytes.last().is_some_and(alnum)
                && !part.contains("..")
                && bytes.iter().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
        })
}

/// Whether `tag` is a tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
pub(crate) fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}
