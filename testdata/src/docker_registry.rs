//! The real thing: Debian's `docker-registry`, on a loopback port, with storage of its own.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::free_port::free_port;
use crate::need::{Need, available};

/// A published test vector of bcrypt, for the password `U*U`.
const HTPASSWD: &str = "me:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";

/// User name and password of a registry made with [`DockerRegistry::with_password`].
pub const CREDENTIALS: (&str, &str) = ("me", "U*U");

/// A running registry. Dropping it ends the process and removes its storage.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    host: String,
    directory: PathBuf,
}

impl DockerRegistry {
    /// Starts one that anybody may use; `None`, with a word about it, where it is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::launch(false)
    }

    /// Starts one that asks for [`CREDENTIALS`].
    #[must_use]
    pub fn with_password() -> Option<Self> {
        Self::launch(true)
    }

    fn launch(password: bool) -> Option<Self> {
        if !available(&[Need::Program("docker-registry", "docker-registry")]) {
            return None;
        }
        // Somebody else may take the port before the registry does.
        (0..5).find_map(|_| Self::try_launch(password)).or_else(|| panic!("docker-registry does not listen"))
    }

    fn try_launch(password: bool) -> Option<Self> {
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let directory = std::env::temp_dir().join(format!("docker-registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: \
             true}}}}\nhttp: {{addr: \"{host}\"}}\n",
            directory.join("storage").display()
        );
        if password {
            let file = directory.join("htpasswd");
            std::fs::write(&file, HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n", file.display());
        }
        let file = directory.join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { process, host, directory };
        for _ in 0..200 {
            let answers = TcpStream::connect(&registry.host).is_ok();
            if registry.process.try_wait().unwrap().is_some() {
                return None;
            }
            if answers {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Copies an image into the registry with skopeo, digests kept; returns its reference there.
    ///
    /// # Panics
    /// If skopeo fails.
    pub fn copy(&self, from: &str, name: &str) -> String {
        let reference = format!("{}/{name}", self.host);
        let output = Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", from])
            .arg(format!("docker://{reference}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        reference
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
