//! The registry's side of the link: Debian's docker-registry in a network namespace of its own.
//!
//! The namespace has no name: it lives as long as the registry, which the kernel kills when this process ends in
//! whatever way. So nothing has to be cleaned up after a crash but the directory of its files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::interrupt;
use crate::link::{Link, Profile};
use crate::requests::{Request, parse};

const PORT: u16 = 5000;
/// How long the registry may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest reading of a blob to see what the link carries.
const PROBE: Duration = Duration::from_secs(3);

/// Run in the new namespace: `$1` the interface, `$2` its address, `$3` the registry's configuration, `$4` its log, `$5`
/// the network.
const INSIDE: &str = r#"
echo ready
read -r go
ip link set lo up
ip address add "$2/30" dev "$1"
ip link set "$1" up
# What most servers have, whatever this machine's default. By the route: a namespace may not choose its default freely.
ip route replace "$5" dev "$1" src "$2" congctl cubic || echo "without cubic: the kernel's default is used" >&2
# Each start finds a server that has not met this client, whatever was measured before it.
echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save || echo "without tcp_no_metrics_save: starts depend on those before" >&2
exec docker-registry serve "$3" > "$4" 2>&1
"#;

/// A registry behind a link.
pub(crate) struct Site {
    pub(crate) link: Link,
    /// Settings for our daemon, in TOML, before those that it cannot do without here.
    pub(crate) daemon_config: String,
    /// Recordings of starts, by file name.
    pub(crate) recordings: RefCell<BTreeMap<OsString, Vec<u8>>>,
    process: Child,
    host: String,
    address: SocketAddr,
    storage: PathBuf,
    log: PathBuf,
}

/// What the link is like as seen from this side.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Check {
    /// Median time of a TCP connect, in milliseconds.
    pub(crate) connect_ms: f64,
    /// Bits of content in a second over one connection, once it is under way; absent where the blob is too small to tell.
    pub(crate) megabits: Option<f64>,
}

impl Site {
    /// Starts a registry with its files in `directory`. The link has no delay and no limit yet.
    ///
    /// Must be called on the main thread: the registry is killed when the thread ends.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let id = std::process::id();
        let (near, far) = (format!("soci{id:x}a"), format!("soci{id:x}b"));
        let [here, there] = addresses(id);
        let link = Link::new(&near, &far)?;
        link.set(None)?;
        let (storage, log) = (directory.join("storage"), directory.join("log"));
        fs::create_dir_all(&storage)?;
        let config = directory.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info, formatter: json, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {storage:?}}}}}\nhttp: {{addr: \"{there}:{PORT}\", secret: none}}\n"
            ),
        )?;
        let network = format!("{}/30", Ipv4Addr::from(u32::from(here) & !3));
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-euc", INSIDE, "sh"])
            .args([&far, &there.to_string()])
            .args([&config, &log])
            .arg(&network)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run setpriv and unshare (Debian package util-linux)")?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = SocketAddr::new(IpAddr::V4(there), PORT);
        let host = address.to_string();
        // From here on dropping it ends the process.
        let daemon_config = String::new();
        let recordings = RefCell::default();
        let mut site = Self { link, daemon_config, recordings, process, host, address, storage, log };
        ensure!(
            line == "ready\n",
            "cannot make a network namespace: are you root, and is that allowed here?"
        );
        let namespace = site.process.id().to_string();
        ip(&["link", "set", &far, "netns", &namespace])?;
        ip(&["address", "add", &format!("{here}/30"), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        let route =
            ["route", "replace", &network, "dev", &near, "src", &here.to_string(), "congctl", "cubic"];
        // Little is sent in this direction: where cubic is not to be had, another will do.
        let _ = ip(&route);
        if let Some(mut input) = site.process.stdin.take() {
            input.write_all(b"go\n")?;
        }
        site.wait()?;
        Ok(site)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            interrupt::check()?;
            let ended = self.process.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the registry does not start: {ended:?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Address and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Copies an image of an OCI layout into it; returns the reference.
    pub(crate) fn copy(&self, layout: &Path, tag: &str, name: &str) -> anyhow::Result<String> {
        let reference = format!("{}/{name}:1", self.host);
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{reference}"))
            .output()
            .context("cannot run skopeo")?;
        ensure!(
            output.status.success(),
            "cannot copy {name} into the registry: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(reference)
    }

    /// The file of a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let start = hex.get(..2).unwrap_or_default();
        self.storage.join("docker/registry/v2/blobs/sha256").join(start).join(hex).join("data")
    }

    /// Brings blobs back into memory: the registry is to be another machine, whose disk is not what is measured.
    pub(crate) fn warm<'d>(&self, digests: impl IntoIterator<Item = &'d str>) -> anyhow::Result<()> {
        for digest in digests {
            interrupt::check()?;
            let path = self.blob(digest);
            let mut file = File::open(&path).with_context(|| format!("no blob {digest} in the registry"))?;
            std::io::copy(&mut file, &mut std::io::sink())?;
        }
        Ok(())
    }

    /// Where the log ends now.
    pub(crate) fn mark(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Requests that were answered since a mark.
    pub(crate) fn requests(&self, mark: u64) -> anyhow::Result<Vec<Request>> {
        let mut file = File::open(&self.log)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(mark))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
    }

    /// Sees whether the link is what the profile says, by reading a blob.
    pub(crate) fn check(&self, profile: &Profile, repository: &str, digest: &str) -> anyhow::Result<Check> {
        self.link.set(Some(profile))?;
        let mut times = Vec::new();
        for _ in 0..9 {
            let started = Instant::now();
            drop(TcpStream::connect_timeout(&self.address, PATIENCE)?);
            times.push(started.elapsed());
        }
        times.sort();
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = &self.host;
        write!(
            stream,
            "GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        // The connection's start is left out: the first third of the time.
        let (started, mut buffer) = (Instant::now(), vec![0; 1 << 18]);
        let mut received = vec![(Duration::ZERO, 0)];
        let mut total = 0u64;
        while started.elapsed() < PROBE {
            interrupt::check()?;
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            total += length as u64;
            received.push((started.elapsed(), total));
        }
        let end = received.last().map_or(Duration::ZERO, |(time, _)| *time);
        let begin = received.iter().find(|(time, _)| *time > end / 3);
        let megabits = begin
            .filter(|_| profile.seconds(total) > 0.02)
            .map(|(time, bytes)| (total - bytes) as f64 * 8.0 / 1e6 / (end - *time).as_secs_f64().max(1e-9));
        self.link.set(None)?;
        Ok(Check { connect_ms: times[times.len() / 2].as_secs_f64() * 1000.0, megabits })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// This side's address and the registry's: one of 2^15 networks of the range that is set aside for benchmarks
/// (198.18.0.0/15), so that two runs at the same time rarely meet.
fn addresses(id: u32) -> [Ipv4Addr; 2] {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (id % (1 << 15)) * 4;
    [Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2)]
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("cannot run ip (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
