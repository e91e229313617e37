//! `hosts.toml`, as containerd reads it (containerd, docs/hosts.md):
//!
//! ```toml
//! server = "https://registry.example"        # the registry itself; its own name if left out
//!
//! [host."https://mirror.example:5000"]       # asked before it, in the order of the file
//!   capabilities = ["pull", "resolve"]
//!   ca = "mirror.crt"                        # or a list; relative to this file
//!   client = [["client.cert", "client.key"]]
//!   skip_verify = false
//!   override_path = false
//!   dial_timeout = "2s"
//!   [host."https://mirror.example:5000".header]
//!     x-custom = ["a", "b"]
//! ```
//!
//! It lies in `<dir>/<host[:port]>/`, `<dir>/<host>_<port>_/` or `<dir>/_default/`. Without a `hosts.toml` the
//! directory's `*.crt` are authorities and `*.cert` with `*.key` a client certificate, as Docker has it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::options::{Capabilities, HostConfig, ServerConfig};
use super::route::Route;
use crate::config::ClientConfig;
use crate::error::{Error, Result};
use crate::reference::split_port;
use crate::tls_options::TlsOptions;

const FILE_NAME: &str = "hosts.toml";
const DEFAULT_DIR: &str = "_default";

#[derive(Deserialize)]
struct File {
    server: Option<Spanned<String>>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Server>,
}

#[derive(Deserialize, Default)]
struct Server {
    capabilities: Option<Spanned<Vec<String>>>,
    ca: Option<Spanned<OneOrMany<String>>>,
    client: Option<Spanned<OneOrMany<OneOrMany<String>>>>,
    skip_verify: Option<bool>,
    #[serde(default)]
    override_path: bool,
    header: Option<BTreeMap<String, OneOrMany<String>>>,
    dial_timeout: Option<Spanned<String>>,
}

const KNOWN: [&str; 7] =
    ["capabilities", "ca", "client", "skip_verify", "override_path", "header", "dial_timeout"];

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// The configuration of `host` in `dir`; `None` if there is none.
pub(super) fn load(dir: &Path, host: &str) -> Result<Option<HostConfig>> {
    for name in directory_names(host) {
        let host_dir = dir.join(name);
        if host_dir.is_dir() {
            return load_dir(&host_dir).map(Some);
        }
    }
    Ok(None)
}

fn directory_names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let (name, Some(port)) = split_port(host) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    names.push(DEFAULT_DIR.to_owned());
    names
}

/// Reads everything in `dir`, so that mistakes show at start-up and not in the middle of a pull.
pub(super) fn validate(dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::config(format!("cannot read {}: {error}", dir.display()))),
    };
    for entry in entries {
        let entry =
            entry.map_err(|error| Error::config(format!("cannot read {}: {error}", dir.display())))?;
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let found = load_dir(&path)?;
        // The directory's own name is not checked: a stray directory does no harm.
        let checked = Route::new("registry.invalid", &found, &ClientConfig::default());
        checked.map_err(|error| Error::config(format!("{}: {error}", path.join(FILE_NAME).display())))?;
        for server in found.mirrors.iter().chain([&found.server]) {
            crate::certificates::validate(&server.tls)
                .map_err(|error| Error::config(format!("{}: {error}", path.join(FILE_NAME).display())))?;
        }
    }
    Ok(())
}

fn load_dir(dir: &Path) -> Result<HostConfig> {
    let path = dir.join(FILE_NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let server = ServerConfig { tls: certificate_files(dir)?, ..ServerConfig::default() };
            Ok(HostConfig { mirrors: Vec::new(), server })
        }
        Err(error) => Err(Error::config(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Docker's way: `*.crt` are authorities, `x.cert` and `x.key` a client certificate.
fn certificate_files(dir: &Path) -> Result<TlsOptions> {
    let unreadable = |error| Error::config(format!("cannot read {}: {error}", dir.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort();
    let mut tls = TlsOptions::default();
    for path in files {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.ca_files.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    return Err(Error::config(format!(
                        "{} has no {} beside it",
                        path.display(),
                        key.display()
                    )));
                }
                tls.client_cert = Some(path);
                tls.client_key = Some(key);
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// The text with its place on disk, for messages that name both.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, span: Range<usize>, message: impl std::fmt::Display) -> Error {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        Error::config(format!("{}, line {line}: {message}", self.path.display()))
    }
}

pub(super) fn parse(path: &Path, text: &str) -> Result<HostConfig> {
    let source = Source { path, text };
    let toml_error = |error: toml::de::Error| {
        let message = error.message().to_owned();
        source.error(error.span().unwrap_or(0..0), message)
    };
    let file: File = toml::from_str(text).map_err(toml_error)?;
    // The registry's own settings stand at the root. serde's `flatten` would lose the spans: a second pass.
    let root: Server = toml::from_str(text).map_err(toml_error)?;
    warn_unknown(&source, &toml::from_str(text).map_err(toml_error)?);

    let mut ordered: Vec<_> = file.host.into_iter().collect();
    ordered.sort_by_key(|(name, _)| name.span().start);
    let mut mirrors = Vec::new();
    for (name, server) in ordered {
        let url = check_url(&source, &name)?;
        mirrors.push(server_config(&source, Some(url), server)?);
    }
    let url = file.server.as_ref().map(|url| check_url(&source, url)).transpose()?;
    Ok(HostConfig { mirrors, server: server_config(&source, url, root)? })
}

fn check_url(source: &Source<'_>, url: &Spanned<String>) -> Result<String> {
    let text = url.get_ref().trim();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || rest.contains("://") || rest.contains(char::is_whitespace) {
        return Err(source.error(
            url.span(),
            format_args!(
                "`{}` is not a server: expected `https://host[:port]`",
                crate::redact::message(text)
            ),
        ));
    }
    Ok(text.to_owned())
}

fn server_config(source: &Source<'_>, url: Option<String>, server: Server) -> Result<ServerConfig> {
    let relative = |file: String| -> PathBuf { source.path.parent().unwrap_or(Path::new("/")).join(file) };
    let mut tls = TlsOptions { skip_verify: server.skip_verify.unwrap_or(false), ..TlsOptions::default() };
    if let Some(ca) = server.ca {
        tls.ca_files = ca.into_inner().into_vec().into_iter().map(relative).collect();
    }
    if let Some(client) = server.client {
        let span = client.span();
        let (cert, key) = client_pair(client.into_inner()).map_err(|why| source.error(span, why))?;
        tls.client_cert = Some(relative(cert));
        tls.client_key = key.map(relative);
    }
    let connect_timeout = match server.dial_timeout {
        Some(text) => Some(go_duration(text.get_ref()).ok_or_else(|| {
            source.error(
                text.span(),
                format_args!("dial_timeout `{}` is not a duration like `3s`", text.get_ref()),
            )
        })?),
        None => None,
    };
    let headers = server.header.unwrap_or_default().into_iter();
    Ok(ServerConfig {
        url,
        capabilities: capabilities(source, server.capabilities)?,
        tls,
        override_path: server.override_path,
        headers: headers.flat_map(|(k, v)| v.into_vec().into_iter().map(move |v| (k.clone(), v))).collect(),
        connect_timeout,
        response_timeout: None,
    })
}

fn capabilities(source: &Source<'_>, given: Option<Spanned<Vec<String>>>) -> Result<Capabilities> {
    let Some(given) = given.filter(|list| !list.get_ref().is_empty()) else { return Ok(Capabilities::ALL) };
    let mut has = Capabilities { pull: false, resolve: false, push: false };
    for name in given.get_ref() {
        match name.to_ascii_lowercase().as_str() {
            "pull" => has.pull = true,
            "resolve" => has.resolve = true,
            "push" => has.push = true,
            // containerd 2.2 knows this one too; here referrers belong to `pull`.
            "referrers" => {}
            _ => {
                return Err(source.error(
                    given.span(),
                    format_args!("capability `{name}` is unknown: expected pull, resolve or push"),
                ));
            }
        }
    }
    Ok(has)
}

/// One certificate file with or without a key file. containerd allows several pairs; TLS libraries present one.
fn client_pair(client: OneOrMany<OneOrMany<String>>) -> Result<(String, Option<String>), &'static str> {
    let first = match client {
        OneOrMany::One(one) => one.into_vec(),
        OneOrMany::Many(many) => {
            if many.len() > 1 {
                return Err("`client` lists several certificates; only one can be used");
            }
            many.into_iter().next().map(OneOrMany::into_vec).unwrap_or_default()
        }
    };
    let mut files = first.into_iter();
    match (files.next(), files.next(), files.next()) {
        (Some(cert), key, None) => Ok((cert, key.filter(|k| !k.is_empty()))),
        _ => Err("`client` must be a file, or a list of one pair [certificate, key]"),
    }
}

/// A duration as Go writes it: `1m30s`, `500ms`; a bare number is seconds.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if let Ok(seconds) = rest.parse::<u32>() {
        total = Duration::from_secs(seconds.into());
        rest = "";
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(value * unit).ok()?)?;
        rest = &rest[unit_len..];
    }
    Some(total).filter(|total| !total.is_zero())
}

/// A misspelt key silently changes nothing; say so. Not an error, because newer containerds may know more keys.
fn warn_unknown(source: &Source<'_>, table: &toml::Table) {
    let hosts = table.get("host").and_then(|host| host.as_table());
    let servers = hosts.into_iter().flat_map(|hosts| hosts.values()).filter_map(|host| host.as_table());
    let unknown = servers
        .flat_map(|server| server.keys())
        .chain(table.keys().filter(|k| *k != "server" && *k != "host"));
    for key in unknown.filter(|key| !KNOWN.contains(&key.as_str())) {
        tracing::warn!(file = %source.path.display(), key, "unknown key in hosts.toml is ignored");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn parsed(text: &str) -> HostConfig {
        parse(Path::new("/certs/h/hosts.toml"), text).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(Path::new("/certs/h/hosts.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn all_keys_in_the_order_of_the_file() {
        let config = parsed(
            r#"
server = "https://origin.example"
skip_verify = true
[host."https://z.example"]
capabilities = ["pull", "resolve"]
ca = "z.crt"
client = [["c.cert", "/abs/c.key"]]
override_path = true
dial_timeout = "1m1.5s"
[host."https://z.example".header]
x-one = "1"
x-two = ["2", "3"]
[host."a.example:5000"]
ca = ["a.crt", "b.crt"]
client = "both.pem"
"#,
        );
        let [z, a] = config.mirrors.as_slice() else { unreachable!() };
        assert_eq!(z.url.as_deref(), Some("https://z.example"));
        assert_eq!(z.capabilities, Capabilities { pull: true, resolve: true, push: false });
        assert_eq!(z.tls.ca_files, [PathBuf::from("/certs/h/z.crt")]);
        assert_eq!(z.tls.client_cert, Some("/certs/h/c.cert".into()));
        assert_eq!(z.tls.client_key, Some("/abs/c.key".into()));
        assert!(z.override_path && !z.tls.skip_verify);
        assert_eq!(z.connect_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(z.headers.len(), 3);
        assert_eq!(a.url.as_deref(), Some("a.example:5000"));
        assert_eq!(a.capabilities, Capabilities::ALL);
        assert_eq!(a.tls.ca_files.len(), 2);
        assert_eq!(a.tls.client_key, None);
        assert_eq!(config.server.url.as_deref(), Some("https://origin.example"));
        assert!(config.server.tls.skip_verify);
    }

    #[test]
    fn client_forms() {
        for (text, key) in [
            ("client = \"a\"", None),
            ("client = [\"a\"]", None),
            ("client = [[\"a\", \"b\"]]", Some("/certs/h/b".into())),
            ("client = [[\"a\", \"\"]]", None),
        ] {
            let tls = parsed(text).server.tls;
            assert_eq!(tls.client_cert, Some("/certs/h/a".into()), "{text}");
            assert_eq!(tls.client_key, key, "{text}");
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, words) in [
            ("server = \"https://x\"\nserver 1", "line 2"),
            ("\n\n[host.\"https://x\"]\ncapabilities = [\"pul\"]", "line 4: capability `pul`"),
            ("\nserver = \"https://\"", "line 2: `https://`"),
            ("\nserver = \"ftp://x\"", "line 2"),
            ("dial_timeout = \"3 parsecs\"", "line 1: dial_timeout"),
            ("\nskip_verify = \"yes\"", "line 2"),
            ("client = [[\"a\",\"b\",\"c\"]]", "line 1: `client`"),
            ("client = []", "line 1: `client`"),
        ] {
            let message = refused(text);
            assert!(message.contains("/certs/h/hosts.toml") && message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(go_duration("3s"), Some(Duration::from_secs(3)));
        assert_eq!(go_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(go_duration("5"), Some(Duration::from_secs(5)));
        for bad in ["", "s", "3", "3x", "-3s", "0s", "1e400s", "3s4"] {
            assert_eq!(go_duration(bad), (bad == "3").then(|| Duration::from_secs(3)), "{bad}");
        }
    }

    #[test]
    fn no_time_to_connect_is_refused_however_it_is_written() {
        for zero in ["0", " 0", "000", "0s", "0.0m", "0.1ns"] {
            assert_eq!(go_duration(zero), None, "{zero}");
        }
    }
}
