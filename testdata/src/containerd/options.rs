//! What a containerd of the tests is to have, and the configuration that says so.

use std::path::{Path, PathBuf};

use super::{Containerd, Release};

/// What [`Containerd`] is to have.
#[derive(Debug, Clone)]
pub struct Options {
    release: Release,
    cri: bool,
    annotations: bool,
    /// Name and socket.
    proxies: Vec<(String, PathBuf)>,
    default_snapshotter: Option<String>,
    pause_image: Option<String>,
    import: Option<String>,
    documented: Option<String>,
    extra: String,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Of the release that the tests are run against, with neither CRI nor snapshotters of others.
    #[must_use]
    pub fn new() -> Self {
        Self {
            release: Release::under_test(),
            cri: false,
            annotations: false,
            proxies: Vec::new(),
            default_snapshotter: None,
            pause_image: None,
            import: None,
            documented: None,
            extra: String::new(),
        }
    }

    /// Of this release, whatever the tests are run against.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// With the CRI plugin, whose snapshotter is the [proxy](Self::proxy) if there is one, and which passes the labels
    /// that remote snapshotters need. Its streaming server takes any free port.
    #[must_use]
    pub fn cri(mut self) -> Self {
        self.cri = true;
        self.annotations = true;
        self
    }

    /// The CRI plugin does not pass the labels that remote snapshotters need.
    #[must_use]
    pub fn without_annotations(mut self) -> Self {
        self.annotations = false;
        self
    }

    /// With a snapshotter that listens at `socket`, now or later.
    #[must_use]
    pub fn proxy(mut self, name: &str, socket: impl Into<PathBuf>) -> Self {
        self.proxies.push((name.to_owned(), socket.into()));
        self
    }

    /// The snapshotter that CRI uses, if it is not the first proxy, or `overlayfs` without any.
    #[must_use]
    pub fn cri_snapshotter(mut self, name: &str) -> Self {
        self.default_snapshotter = Some(name.to_owned());
        self
    }

    /// The image that holds the namespaces of CRI's pods.
    #[must_use]
    pub fn pause_image(mut self, reference: &str) -> Self {
        self.pause_image = Some(reference.to_owned());
        self
    }

    /// With this configuration for the snapshotter, as it is documented for the release. It says all that there is to say of
    /// [proxies](Self::proxy) and of CRI's snapshotter: nothing else is written of them.
    #[must_use]
    pub fn documented(mut self, toml: &str) -> Self {
        // The file that it becomes a part of has a version of its own.
        let is_version = |line: &&str| line.starts_with("version = ");
        self.documented = Some(
            toml.lines()
                .filter(|line| !is_version(line))
                .fold(String::new(), |text, line| text + line + "\n"),
        );
        self
    }

    /// Imports this configuration, which says all that there is to say of [proxies](Self::proxy): nothing is written of
    /// them. For containerd 2, which merges what it imports key by key.
    #[must_use]
    pub fn import(mut self, toml: &str) -> Self {
        self.import = Some(toml.to_owned());
        self
    }

    /// More configuration, in TOML, appended as it is.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.extra += toml;
        self.extra.push('\n');
        self
    }

    /// Starts it and waits until it answers; `None`, with a word about it, where it is not installed or there is no root.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(self) -> Option<Containerd> {
        self.release.is_available().then(|| Containerd::launch(&self))
    }

    /// Its release.
    #[must_use]
    pub fn which(&self) -> Release {
        self.release
    }

    /// What is to be imported, and where that is.
    pub(super) fn imported(&self, home: &Path) -> Option<(PathBuf, &str)> {
        self.import.as_deref().map(|text| (home.join("import.toml"), text))
    }

    /// The configuration of a containerd that has everything below `home`.
    pub(super) fn text(&self, home: &Path) -> String {
        let mut text = self.general(home);
        if self.import.is_some() {
            return text + &self.cri_of_2(home) + &self.extra;
        }
        if let Some(documented) = &self.documented {
            let cri = if self.release.is_current() { self.cri_of_2(home) } else { self.cri_of_1(home) };
            return text + documented + &cri + &self.extra;
        }
        for (name, socket) in &self.proxies {
            text += &format!(
                "[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = {}\n",
                quoted(socket.clone())
            );
            if self.release.is_current() {
                text += &format!(
                    "capabilities = [\"remap-ids\"]\n[proxy_plugins.{name}.exports]\n\
                     enable_remote_snapshot_annotations = \"true\"\n"
                );
            }
        }
        if self.release.is_current() {
            let snapshotters = ["overlayfs", "native"].into_iter();
            for snapshotter in snapshotters.chain(self.proxies.iter().map(|(name, _)| name.as_str())) {
                text += &format!(
                    "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux\"\nsnapshotter = \
                     {snapshotter:?}\n"
                );
            }
        }
        if self.cri {
            text += &if self.release.is_current() { self.cri_of_2(home) } else { self.cri_of_1(home) };
        }
        text + &self.extra
    }

    /// Directories, socket and plugins.
    fn general(&self, home: &Path) -> String {
        let cri: &[&str] = match (self.cri, self.release.is_current()) {
            (true, _) => &[],
            (false, false) => &["io.containerd.grpc.v1.cri"],
            (false, true) => {
                &["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
            }
        };
        // These would only look for what a test machine lacks.
        let others = ["aufs", "btrfs", "devmapper", "zfs", "blockfile", "erofs"];
        let others = others.map(|name| format!("\"io.containerd.snapshotter.v1.{name}\""));
        let disabled: Vec<String> = cri.iter().map(|name| format!("{name:?}")).chain(others).collect();
        let version = if self.release.is_current() { 3 } else { 2 };
        // It is on by default, and two that start at once with one socket for all take it from each other: CRI ends then.
        let nri = home.join("nri");
        let nri = self
            .release
            .is_current()
            .then(|| format!("[plugins.\"io.containerd.nri.v1.nri\"]\nsocket_path = {}\n", quoted(nri)));
        let imports: Vec<_> = self.imported(home).into_iter().map(|(path, _)| quoted(path)).collect();
        format!(
            "version = {version}\nimports = [{imports}]\nroot = {root}\nstate = {state}\ndisabled_plugins = [{disabled}]\n[grpc]\naddress = \
             {socket}\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt}\n{nri}",
            nri = nri.unwrap_or_default(),
            imports = imports.join(", "),
            root = quoted(home.join("root")),
            state = quoted(home.join("state")),
            socket = quoted(home.join("c")),
            opt = quoted(home.join("opt")),
            disabled = disabled.join(", "),
        )
    }

    fn snapshotter(&self) -> &str {
        let first_proxy = self.proxies.first().map(|(name, _)| name.as_str());
        self.default_snapshotter.as_deref().or(first_proxy).unwrap_or("overlayfs")
    }

    /// The table of CRI that says how images are pulled, unless that is documented.
    fn images_of_cri(&self, table: &str) -> String {
        if self.documented.is_some() {
            return String::new();
        }
        format!(
            "[plugins.{table}]\nsnapshotter = {:?}\ndisable_snapshot_annotations = {}\n",
            self.snapshotter(),
            !self.annotations
        )
    }

    fn cri_of_1(&self, home: &Path) -> String {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             {pause}restrict_oom_score_adj = true\n{images}\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nRoot = {runc}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = {certs}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {bin:?}\nconf_dir = {cni}\n",
            pause = self
                .pause_image
                .iter()
                .map(|image| format!("sandbox_image = {image:?}\n"))
                .collect::<String>(),
            images = self.images_of_cri("\"io.containerd.grpc.v1.cri\".containerd"),
            runc = quoted(home.join("runc")),
            certs = quoted(home.join("certs.d")),
            bin = super::CNI_PLUGINS,
            cni = quoted(home.join("cni")),
        )
    }

    fn cri_of_2(&self, home: &Path) -> String {
        format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             {images}[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = {certs}\n\
             {pause}[plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\nRoot = {runc}\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [{bin:?}]\nconf_dir = {cni}\n",
            pause = self
                .pause_image
                .iter()
                .map(|image| {
                    format!("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = {image:?}\n")
                })
                .collect::<String>(),
            images = self.images_of_cri("\"io.containerd.cri.v1.images\""),
            runc = quoted(home.join("runc")),
            certs = quoted(home.join("certs.d")),
            bin = super::CNI_PLUGINS,
            cni = quoted(home.join("cni")),
        )
    }
}

fn quoted(path: PathBuf) -> String {
    format!("{:?}", path.display().to_string())
}
