//! containerd: its version, its configuration, and its plugins as they run.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use soci_index::containerd::{Containerd, ContainerdError, DEFAULT_NAMESPACE, Plugin};
use toml::{Table, Value};

use super::options::Options;
use super::report::{Report, Subject, Verdict};
use crate::daemon::node::containerd_file::{ContainerdFile, Cri, DEFAULT_PATH, FileError};
use crate::daemon::node::version::{ContainerdVersion, Running, RunningError};

/// Longest command line of containerd that is read, in bytes.
const MAX_COMMAND: u64 = 1 << 16;
/// What to do about nearly everything here.
const WRITE: &str = "`soci-snapshotter-grpc config containerd` writes a configuration that works; put it in place and \
                     restart containerd.";

/// What is known of containerd.
#[derive(Debug)]
pub(super) struct Facts {
    /// The version that its configuration is read as.
    version: ContainerdVersion,
    /// How the version is known; the error says why it is not.
    source: Result<String, RunningError>,
    file: Result<ContainerdFile, FileError>,
    /// Its plugins as they run, or why that is not known.
    plugins: Result<Vec<Plugin>, ContainerdError>,
    /// Nobody expects one to run.
    assumed: bool,
}

/// The daemon, which containerd should know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) socket: &'a Path,
    pub(super) root: &'a Path,
    pub(super) snapshotter: &'a str,
}

pub(super) async fn gather(options: &Options) -> Facts {
    let address = options.containerd_address.to_string_lossy();
    let plugins = match Containerd::connect(&address, DEFAULT_NAMESPACE).await {
        Ok(containerd) => containerd.plugins().await,
        Err(error) => Err(error),
    };
    let running = match options.containerd_version {
        Some(version) => Ok(Running { version, source: format!("containerd {version} is assumed") }),
        None => Running::find(&address).await,
    };
    let path = match &options.containerd_config {
        Some(path) => path.clone(),
        None => started_with(&options.containerd_address).await.unwrap_or_else(|| DEFAULT_PATH.into()),
    };
    let (version, source) = match running {
        Ok(running) => (running.version, Ok(running.source)),
        Err(why) => (guess(&path), Err(why)),
    };
    let file = ContainerdFile::load(&path, version);
    Facts { version, source, file, plugins, assumed: options.containerd_version.is_some() }
}

/// The containerd that a file is most likely for.
fn guess(path: &Path) -> ContainerdVersion {
    let newest = ContainerdVersion::new(2, 3);
    match ContainerdFile::load(path, newest).map(|file| file.config_version) {
        Ok(1 | 2) => ContainerdVersion::new(1, 7),
        Ok(3) => ContainerdVersion::new(2, 2),
        _ => newest,
    }
}

/// The configuration that whoever listens at a socket was started with, by its command line.
async fn started_with(socket: &Path) -> Option<PathBuf> {
    let pid = tokio::net::UnixStream::connect(socket).await.ok()?.peer_cred().ok()?.pid()?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut line = Vec::new();
    std::fs::File::open(process.join("cmdline")).ok()?.take(MAX_COMMAND).read_to_end(&mut line).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let given = loop {
        match words.next()? {
            b"--config" | b"-config" | b"-c" => break words.next()?,
            word => {
                if let Some(path) = word.strip_prefix(b"--config=").or_else(|| word.strip_prefix(b"-c=")) {
                    break path;
                }
            }
        }
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(given));
    Some(std::fs::read_link(process.join("cwd")).ok()?.join(path))
}

impl Facts {
    /// The socket at which containerd looks for the snapshotter.
    pub(super) fn socket(&self, snapshotter: &str) -> Option<PathBuf> {
        let address = self.file.as_ref().ok()?.proxy(snapshotter)?.get("address")?.as_str()?;
        Some(socket_path(address))
    }

    /// Whether the snapshotter is to map the ids of containers in user namespaces.
    pub(super) fn maps_ids(&self, snapshotter: &str) -> bool {
        self.file
            .as_ref()
            .is_ok_and(|file| file.proxy(snapshotter).is_some_and(|proxy| has_capability(proxy, "remap-ids")))
    }
}

fn socket_path(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}

fn has_capability(proxy: &Table, name: &str) -> bool {
    let all = proxy.get("capabilities").and_then(Value::as_array);
    all.is_some_and(|all| all.iter().any(|capability| capability.as_str() == Some(name)))
}

fn same_path(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

pub(super) fn judge(facts: &Facts, own: Own<'_>, report: &mut Report) {
    match &facts.source {
        Ok(source) => report.ok(Subject::Containerd, "containerd-version", source.clone()),
        Err(why) => {
            let message = format!(
                "the version of containerd is not known ({why}); its configuration is read as that of {}",
                facts.version
            );
            report.note(Subject::Containerd, "containerd-version-unknown", message);
        }
    }
    match &facts.file {
        Ok(file) => judge_file(facts.version, file, own, report),
        Err(error) => {
            report
                .problem(Subject::Containerd, "containerd-config-unreadable", error.to_string())
                .advise(WRITE);
        }
    }
    judge_running(facts, own, report);
}

fn judge_file(version: ContainerdVersion, file: &ContainerdFile, own: Own<'_>, report: &mut Report) {
    let before = report.findings.len();
    let path = file.path.display();
    if file.config_version > version.config_version() {
        let message = format!(
            "containerd {version} does not start with {path}: the file has version {}, and it reads {} at most",
            file.config_version,
            version.config_version()
        );
        report.problem(Subject::Containerd, "containerd-config-version", message).advise(WRITE);
    } else if file.config_version < 2 {
        let message = format!(
            "{path} has no `version = {}`: plugins have other names in version 1",
            version.config_version()
        );
        report.warning(Subject::Containerd, "containerd-config-version", message).advise(WRITE);
    }
    match file.proxy(own.snapshotter) {
        Some(proxy) => judge_proxy(version, file, proxy, own, report),
        None => {
            let message = format!(
                "containerd does not know the snapshotter: {path} has no [proxy_plugins.{}]",
                own.snapshotter
            );
            let others = file.proxies().join(", ");
            let others = if others.is_empty() {
                String::new()
            } else {
                format!(" (It has: {others}; --snapshotter chooses one.)")
            };
            report.problem(Subject::Containerd, "plugin-missing", message).advise(format!("{WRITE}{others}"));
        }
    }
    if version.is_at_least(2, 0) {
        judge_transfer(file, own, report);
    }
    judge_cri(version, file, &file.cri(), own, report);
    if report.findings[before..].iter().all(|finding| finding.verdict < Verdict::Warning) {
        report.ok(Subject::Containerd, "containerd-config", format!("{path} has all that clients need"));
    }
}

fn judge_proxy(
    version: ContainerdVersion,
    file: &ContainerdFile,
    proxy: &Table,
    own: Own<'_>,
    report: &mut Report,
) {
    let (path, name) = (file.path.display(), own.snapshotter);
    let text = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    if !matches!(text(proxy, "type").as_deref(), Some("snapshot" | "io.containerd.snapshotter.v1")) {
        let message =
            format!("[proxy_plugins.{name}] in {path} is no snapshotter: its type has to be \"snapshot\"");
        report.problem(Subject::Containerd, "plugin-type", message).advise(WRITE);
    }
    let address = text(proxy, "address").unwrap_or_default();
    if !same_path(&socket_path(&address), own.socket) {
        let socket = own.socket.display();
        let message = format!(
            "containerd's plugin has the wrong socket: [proxy_plugins.{name}] in {path} says {address:?}, the daemon's is \
             {socket}"
        );
        report.problem(Subject::Containerd, "plugin-socket", message).advise(format!(
            "Set `address = \"{socket}\"` there and restart containerd; or give this command the daemon's --address."
        ));
    }
    let empty = Table::new();
    let exports = proxy.get("exports").and_then(Value::as_table).unwrap_or(&empty);
    if version.is_at_least(2, 1)
        && text(exports, "enable_remote_snapshot_annotations").as_deref() != Some("true")
    {
        let message = format!(
            "remote snapshot annotations are off: [proxy_plugins.{name}.exports] in {path} lacks \
             enable_remote_snapshot_annotations = \"true\", so nothing that nerdctl and ctr pull is lazy"
        );
        report
            .problem(Subject::Containerd, "remote-annotations-off", message)
            .advise(format!("Set it, as a string in quotation marks, and restart containerd. {WRITE}"));
    }
    if version.is_at_least(1, 7) && !has_capability(proxy, "remap-ids") {
        let message = format!(
            "[proxy_plugins.{name}] in {path} lacks the capability \"remap-ids\": for a container in a user namespace \
             containerd copies the whole image"
        );
        report.warning(Subject::Containerd, "plugin-remap-ids", message).advise(WRITE);
    }
    if let Some(root) = text(exports, "root")
        && !same_path(Path::new(&root), own.root)
    {
        let message = format!(
            "[proxy_plugins.{name}.exports] in {path} says that the root directory is {root:?}, and it is {}: the kubelet \
             looks for free space in the wrong place",
            own.root.display()
        );
        report.warning(Subject::Containerd, "plugin-root", message).advise(WRITE);
    }
}

fn judge_transfer(file: &ContainerdFile, own: Own<'_>, report: &mut Report) {
    let (path, name) = (file.path.display(), own.snapshotter);
    let listed = file.unpacks_for();
    if !listed.as_ref().is_some_and(|all| all.contains(&name)) {
        let message = format!(
            "unpack_config for \"{name}\" is missing in {path}: pulls by nerdctl and ctr fail with \"no unpack platforms \
             defined\""
        );
        report.problem(Subject::Containerd, "unpack-config-missing", message).advise(WRITE);
    } else if listed.is_some_and(|all| !all.contains(&"overlayfs")) {
        let message = format!(
            "unpack_config in {path} leaves out \"overlayfs\": pulls for containerd's own snapshotter fail, because the list \
             takes the place of the default"
        );
        report.warning(Subject::Containerd, "unpack-config-without-overlayfs", message).advise(WRITE);
    }
}

fn judge_cri(
    version: ContainerdVersion,
    file: &ContainerdFile,
    cri: &Cri,
    own: Own<'_>,
    report: &mut Report,
) {
    let path = file.path.display();
    for dropped in &file.dropped_cri {
        let message = format!(
            "containerd {version} ignores the snapshotter of CRI in {}, a file of an older version without a runtime",
            dropped.display()
        );
        report.problem(Subject::Containerd, "cri-settings-dropped", message).advise(WRITE);
    }
    if cri.disabled {
        report.note(
            Subject::Containerd,
            "cri-disabled",
            "CRI is disabled, so Kubernetes does not use this containerd",
        );
        return;
    }
    if !cri.snapshotters.iter().any(|name| name == own.snapshotter) {
        let message =
            format!("CRI does not use the snapshotter ({path}): what the kubelet pulls is not lazy");
        report
            .note(Subject::Containerd, "cri-other-snapshotter", message)
            .advise(format!("On a node of Kubernetes: {WRITE}"));
        return;
    }
    // From 2.1 on the transfer service may pull for CRI, and then the plugin's exports decide.
    let by_transfer = version.is_at_least(2, 1) && cri.local_pull.is_none();
    if !cri.annotations && !by_transfer {
        let cause = match cri.local_pull.filter(|_| version.is_at_least(2, 1)) {
            Some(key) => format!(
                "disable_snapshot_annotations is not false, and {key} keeps CRI from the transfer service"
            ),
            None => "disable_snapshot_annotations is not false".to_owned(),
        };
        let message = format!(
            "snapshot annotations are off for CRI in {path}, so nothing that the kubelet pulls is lazy: {cause}"
        );
        report.problem(Subject::Containerd, "cri-annotations-off", message).advise(format!(
            "Set `disable_snapshot_annotations = false` beside `snapshotter` and restart containerd. {WRITE}"
        ));
    }
}

/// What containerd runs with may be older than its file.
fn judge_running(facts: &Facts, own: Own<'_>, report: &mut Report) {
    let restart = "Restart containerd: `systemctl restart containerd`. Containers go on running.";
    let name = own.snapshotter;
    let plugins = match &facts.plugins {
        Ok(plugins) => plugins,
        Err(_) if facts.assumed => return,
        Err(why) => {
            let message = format!("containerd does not run: {why}");
            report
                .problem(Subject::Containerd, "containerd-not-running", message)
                .advise("Start it, or give its socket with --containerd-address. Its socket can be used by root only.");
            return;
        }
    };
    let snapshotter =
        plugins.iter().find(|plugin| plugin.kind.ends_with("snapshotter.v1") && plugin.id == name);
    let configured = facts.socket(name);
    match (snapshotter, configured) {
        (None, Some(_)) => {
            let message = format!(
                "the containerd that runs does not know \"{name}\" yet: its configuration is newer than it"
            );
            report.problem(Subject::Containerd, "containerd-not-restarted", message).advise(restart);
        }
        (Some(plugin), configured) => {
            let running = plugin.exports.get("address").map(|address| socket_path(address));
            if let Some(error) = &plugin.error {
                let message = format!("containerd's plugin \"{name}\" does not work: {error}");
                report.problem(Subject::Containerd, "plugin-failed", message).advise(WRITE);
            } else if let (Some(running), Some(configured)) = (running, configured)
                && !same_path(&running, &configured)
            {
                let message = format!(
                    "the containerd that runs looks for \"{name}\" at {}: its configuration is newer than it",
                    running.display()
                );
                report.problem(Subject::Containerd, "containerd-not-restarted", message).advise(restart);
            }
        }
        (None, None) => {}
    }
    let wanted = [
        ("io.containerd.transfer.v1", "local"),
        ("io.containerd.cri.v1", "images"),
        ("io.containerd.grpc.v1", "cri"),
    ];
    for (kind, id) in wanted {
        let plugin = plugins.iter().find(|plugin| plugin.kind == kind && plugin.id == id);
        if let Some(error) = plugin.and_then(|plugin| plugin.error.as_ref()) {
            let message = format!("containerd's plugin {kind}.{id} does not work: {error}");
            report
                .warning(Subject::Containerd, "containerd-plugin-failed", message)
                .advise("`journalctl -u containerd` says more.");
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
