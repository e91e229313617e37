//! Which requests go through a proxy: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! The exceptions in `NO_PROXY` are matched as Go's `golang.org/x/net/http/httpproxy` matches them, and so as the
//! reference, containerd and Docker do: `*`, addresses and networks, names with the names below them, each (but networks)
//! with a port or without. Unlike there, loopback has no exception of its own: `NO_PROXY` has to name it.

use std::net::IpAddr;

use url::{Host, Url};

/// The proxies of this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    Everything,
    Network {
        address: IpAddr,
        bits: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `.example.com`; with `itself`, `example.com` too.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<String>,
    },
}

impl Proxies {
    /// What the environment says.
    pub(crate) fn from_env() -> Self {
        Self::from(|name| std::env::var(name).ok())
    }

    /// What the variables say that `get` gives. Upper case comes first.
    fn from(get: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let set = |name: &str| get(name).filter(|value| !value.is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let all = value("ALL_PROXY");
        // In a CGI program the upper case variable is a header of the request: anybody could name a proxy.
        let http = if get("REQUEST_METHOD").is_some() { None } else { value("HTTP_PROXY") };
        Self {
            http: http.or_else(|| all.clone()).and_then(|url| proxy(&url)),
            https: value("HTTPS_PROXY").or(all).and_then(|url| proxy(&url)),
            exceptions: value("NO_PROXY").as_deref().map(exceptions).unwrap_or_default(),
        }
    }

    /// The proxy for a request to `url`, with its login if it has one.
    pub(crate) fn of(&self, url: &Url) -> Option<Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address = host.parse().ok().map(canonical);
        let port = url.port_or_known_default()?;
        let excepted = self.exceptions.iter().any(|exception| exception.holds(&host, address, port));
        (!excepted).then(|| proxy.clone())
    }
}

/// A proxy's URL; one without a scheme speaks plain HTTP.
fn proxy(text: &str) -> Option<Url> {
    let text = text.trim();
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).ok().filter(|url| url.has_host());
    if url.is_none() {
        // It may hold a password, so it is not shown.
        tracing::warn!("the URL of a proxy in the environment is not valid; that proxy is not used");
    }
    url
}

fn exceptions(no_proxy: &str) -> Vec<Exception> {
    let mut all = Vec::new();
    for entry in no_proxy.split(',').map(|entry| entry.trim().to_lowercase()) {
        match Exception::parse(&entry) {
            Some(Exception::Everything) => return vec![Exception::Everything],
            Some(exception) => all.push(exception),
            None => {}
        }
    }
    all
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some(network) = network(entry) {
            return Some(network);
        }
        let (host, port) = host_and_port(entry);
        if let Ok(address) = host.parse() {
            // A port that is not a number matches none.
            let port = port.map(|port| port.parse().unwrap_or(0));
            return Some(Self::Address { address: canonical(address), port });
        }
        let host = host.strip_prefix("*").filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let (itself, name) = host.strip_prefix('.').map_or((true, host), |name| (false, name));
        if host.is_empty() {
            return None;
        }
        // Names in URLs are in their ASCII form.
        let name = match Host::parse(name) {
            Ok(Host::Domain(ascii)) => ascii,
            _ => name.to_owned(),
        };
        Some(Self::Domain { suffix: format!(".{name}"), itself, port: port.map(str::to_owned) })
    }

    fn holds(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Network { address: network, bits } => {
                address.is_some_and(|address| prefix(address, *bits) == prefix(*network, *bits))
            }
            Self::Address { address: own, port: wanted } => {
                address == Some(*own) && wanted.is_none_or(|wanted| wanted == port)
            }
            Self::Domain { suffix, itself, port: wanted } => {
                let fits = host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]);
                fits && wanted.as_ref().is_none_or(|wanted| *wanted == port.to_string())
            }
        }
    }
}

/// `10.0.0.0/8`, `fd00::/8`.
fn network(entry: &str) -> Option<Exception> {
    let (address, bits) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits = bits.parse::<u8>().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    (bits <= width).then_some(Exception::Network { address, bits })
}

/// The two parts of `host:port`, `[address]:port` or `host` (an IPv6 address without brackets has no port).
fn host_and_port(entry: &str) -> (&str, Option<&str>) {
    if let Some(rest) = entry.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':').filter(|port| !port.is_empty()));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (entry, None),
    }
}

/// An IPv4 address within IPv6 (`::ffff:10.0.0.1`) is that IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The kind of an address and its first `bits` bits.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (true, u128::from(u32::from(v4).checked_shr(32 - u32::from(bits)).unwrap_or(0))),
        IpAddr::V6(v6) => {
            (false, u128::from(v6).checked_shr(128_u32.saturating_sub(u32::from(bits))).unwrap_or(0))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from(|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn used(variables: &[(&str, &str)], url: &str) -> Option<String> {
        proxies(variables).of(&Url::parse(url).unwrap()).map(|proxy| proxy.to_string())
    }

    fn is_direct(no_proxy: &str, url: &str) -> bool {
        used(&[("ALL_PROXY", "p:1"), ("NO_PROXY", no_proxy)], url).is_none()
    }

    #[test]
    fn each_scheme_has_its_proxy_and_upper_case_comes_first() {
        let all = [("HTTP_PROXY", "http://a:1"), ("https_proxy", "https://b:2"), ("http_proxy", "c")];
        assert_eq!(used(&all, "http://h/").as_deref(), Some("http://a:1/"));
        assert_eq!(used(&all, "https://h/").as_deref(), Some("https://b:2/"));
        assert_eq!(used(&all[..1], "https://h/"), None);
        assert_eq!(used(&[("all_proxy", "c:3")], "https://h/").as_deref(), Some("http://c:3/"));
        assert_eq!(
            used(&[("HTTP_PROXY", ""), ("http_proxy", "c")], "http://h/").as_deref(),
            Some("http://c/")
        );
        assert_eq!(used(&[], "http://h/"), None);
        assert_eq!(used(&[("HTTP_PROXY", "http://")], "http://h/"), None);
    }

    #[test]
    fn a_login_in_the_url_is_kept() {
        let url = "http://me:p%40ss@a:1/";
        assert_eq!(used(&[("HTTP_PROXY", url)], "http://h/").as_deref(), Some(url));
    }

    #[test]
    fn a_cgi_program_takes_no_proxy_from_a_header() {
        let cgi = ("REQUEST_METHOD", "GET");
        assert_eq!(used(&[cgi, ("HTTP_PROXY", "a:1")], "http://h/"), None);
        assert!(used(&[cgi, ("HTTPS_PROXY", "a:1")], "https://h/").is_some());
    }

    #[test]
    fn loopback_goes_through_the_proxy_unless_named() {
        for url in ["http://localhost:5000/", "http://127.0.0.1:5000/", "http://[::1]:5000/"] {
            assert!(!is_direct("example.com", url), "{url}");
            assert!(is_direct("localhost, 127.0.0.1, ::1", url), "{url}");
        }
        assert!(!is_direct("localhost", "http://127.0.0.1/"));
    }

    /// The table of Go's own tests, without its exception for loopback, and what users write.
    #[test]
    fn exceptions_match_as_in_go() {
        for (no_proxy, direct, proxied) in [
            ("*", &["http://a.b/", "https://10.0.0.1:5000/", "http://[fd00::1]/"][..], &[][..]),
            ("a.b, *", &["http://c.d/"], &[]),
            (
                "example.com",
                &["http://example.com/", "https://x.y.example.com:5000/"],
                &["http://notexample.com/"],
            ),
            (".example.com", &["http://x.example.com/"], &["http://example.com/", "http://notexample.com/"]),
            ("*.example.com", &["http://x.example.com/"], &["http://example.com/"]),
            ("ExAmple.COM", &["http://eXample.com/"], &[]),
            ("  a.b ,\texample.com , ", &["http://example.com/", "http://a.b/"], &["http://c.d/"]),
            (
                "example.com:5000",
                &["http://example.com:5000/", "http://x.example.com:5000/"],
                &["http://example.com/"],
            ),
            (
                "example.com:443",
                &["https://example.com/"],
                &["http://example.com/", "https://example.com:444/"],
            ),
            ("example.com:80", &["http://example.com/"], &["https://example.com/"]),
            (".example.com:80", &["http://x.example.com/"], &["http://example.com/"]),
            ("10.0.0.0/8", &["http://10.1.2.3:5000/"], &["http://11.1.2.3/", "http://x10.1.2.3.com/"]),
            ("192.168.1.77/24", &["http://192.168.1.1/"], &["http://192.168.2.1/"]),
            ("0.0.0.0/0", &["http://1.2.3.4/"], &["http://[fd00::1]/", "http://a.b/"]),
            ("1.2.3.4/32", &["http://1.2.3.4/"], &["http://1.2.3.5/"]),
            ("fd00::/8", &["http://[fd12::1]:5000/"], &["http://[fe00::1]/", "http://10.0.0.1/"]),
            ("::/0", &["http://[1::2]/"], &["http://1.2.3.4/"]),
            ("10.0.0.1", &["http://10.0.0.1:5000/"], &["http://10.0.0.11/"]),
            ("10.0.0.1:5000", &["http://10.0.0.1:5000/"], &["http://10.0.0.1/"]),
            ("[fd00::1]:5000", &["http://[fd00::1]:5000/"], &["http://[fd00::1]/"]),
            ("[fd00::1]", &["http://[fd00::1]/"], &["http://[fd00::2]/"]),
            ("fd00::1", &["http://[fd00:0::1]:5000/"], &["http://[fd00::2]/"]),
            ("10.0.0.1", &["http://[::ffff:10.0.0.1]/"], &[]),
            ("bücher.example", &["http://xn--bcher-kva.example/"], &["http://bucher.example/"]),
            ("10.0.0.0/33,10.0.0.0/x,:80,[,],.,*.,/", &[], &["http://10.0.0.1/", "http://a.b/"]),
            ("", &[], &["http://a.b/"]),
        ] {
            for url in direct {
                assert!(is_direct(no_proxy, url), "NO_PROXY={no_proxy} {url}");
            }
            for url in proxied {
                assert!(!is_direct(no_proxy, url), "NO_PROXY={no_proxy} {url}");
            }
        }
    }
}
