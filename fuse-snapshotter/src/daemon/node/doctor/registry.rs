//! Images: reachable, with the daemon's logins, in ranges, with an index.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use registry::{
    BlobReader, Client, CredentialProvider, Descriptor, DockerConfig, Error, Reference, RetryPolicy,
};
use soci_index::discover::{DiscoverError, NothingNearby, Wanted, find_index};
use soci_index::image::{PlatformChoice, select};
use soci_index::oci::ImageManifest;
use soci_index::source::{ImageSource, RegistrySource, SourceError};

use super::report::{Report, Subject};
use crate::daemon::config::Config;

/// How long an image may be looked at.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest environment that is read, in bytes.
const MAX_ENVIRONMENT: u64 = 1 << 20;

/// Looks for each image in its registry, as the daemon with the process id `pid` would.
pub(super) async fn check(images: &[Reference], config: &Config, pid: Option<u32>, report: &mut Report) {
    if images.is_empty() {
        let message = "no image was named, so no registry was asked: `soci-snapshotter-grpc doctor IMAGE…`";
        report.note(Subject::Registry, "registry-not-asked", message);
        return;
    }
    let logins: Arc<dyn CredentialProvider> = Arc::new(docker_config(pid));
    let mut settings = config.client_config(Arc::clone(&logins));
    // It is to say soon what is wrong.
    settings.retry = RetryPolicy::default().at_most(1);
    settings.read_retry = settings.retry.clone();
    let client = match Client::new(settings) {
        Ok(client) => client,
        // What is wrong with mirrors stands among the configuration's findings.
        Err(_) => return,
    };
    let keychains = config.kubeconfig_keychain() || config.cri_keychain().is_some();
    for image in images {
        let doctor =
            ImageDoctor { client: client.clone(), logins: Arc::clone(&logins), image, config, keychains };
        let looked = tokio::time::timeout(PATIENCE, doctor.look(report)).await;
        if looked.is_err() {
            let message = format!(
                "{}: {image} could not be looked at within {} s",
                image.registry(),
                PATIENCE.as_secs()
            );
            report.problem(Subject::Registry, "registry-slow", message);
        }
    }
}

/// The logins of the daemon: those files that its environment names, which for a service is not that of a shell.
fn docker_config(pid: Option<u32>) -> DockerConfig {
    let environment = pid.and_then(|pid| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    });
    let Some(environment) = environment else { return DockerConfig::from_env() };
    let variables: HashMap<Vec<u8>, OsString> = environment
        .split(|byte| *byte == 0)
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((line[..at].to_vec(), OsString::from_vec(line[at + 1..].to_vec())))
        })
        .collect();
    DockerConfig::from_variables(|name| variables.get(name.as_bytes()).cloned())
}

struct ImageDoctor<'a> {
    client: Client,
    logins: Arc<dyn CredentialProvider>,
    image: &'a Reference,
    config: &'a Config,
    keychains: bool,
}

impl ImageDoctor<'_> {
    async fn look(&self, report: &mut Report) {
        let (descriptor, manifest) = match self.manifest().await {
            Ok(found) => found,
            Err(SourceError::Registry(error)) => return self.judge(&error, report).await,
            Err(error) => {
                report.problem(Subject::Registry, "image-unusable", format!("{}: {error}", self.image));
                return;
            }
        };
        if let Err(error) = self.read_a_range(&manifest).await {
            return self.judge(&error, report).await;
        }
        let modes = self.config.settings().pull;
        let wanted = Wanted { explicit: None, v1: modes.v1, v2: modes.v2 };
        let repository = self.image.repository();
        match find_index(&self.client, repository, &descriptor, &manifest, &wanted, &NothingNearby).await {
            Ok(Some(index)) => {
                let (covered, all) = (index.covered, manifest.layers.len());
                let message = format!(
                    "{}: can be read in ranges; SOCI index {} has {covered} of {all} layers",
                    self.image, index.digest
                );
                report.ok(Subject::Registry, "image", message);
            }
            Ok(None) => {
                let message = format!("{} has no SOCI index, so it is not lazy", self.image);
                report.problem(Subject::Registry, "index-missing", message).advise(format!(
                    "`soci create --push {}` makes one, or `soci convert`. It belongs to this very manifest, and to this \
                     platform.",
                    self.image
                ));
            }
            Err(DiscoverError::Registry(error)) => self.judge(&error, report).await,
            Err(error) => {
                report.problem(Subject::Registry, "index-unusable", format!("{}: {error}", self.image));
            }
        }
    }

    async fn manifest(&self) -> Result<(Descriptor, ImageManifest), SourceError> {
        let source: &dyn ImageSource = &RegistrySource::new(self.client.clone(), self.image.clone());
        let root = source.root().await?;
        let chosen = select(source, &root, &PlatformChoice::Host).await?;
        let descriptor = chosen.into_iter().next().map_or(root, |chosen| chosen.descriptor);
        let manifest = source.image_manifest(&descriptor).await?;
        Ok((descriptor, manifest))
    }

    /// Reads a byte from the middle of the largest layer.
    async fn read_a_range(&self, manifest: &ImageManifest) -> Result<(), Error> {
        let Some(layer) = manifest.layers.iter().max_by_key(|layer| layer.size) else { return Ok(()) };
        let middle = layer.size / 2;
        if middle == 0 {
            return Ok(());
        }
        let reader = self
            .client
            .blob_reader(self.image.repository(), layer.digest.clone(), layer.size)
            .with_max_skip(0);
        let mut bytes = reader.read_range(middle..middle + 1).await?;
        while bytes.try_next().await?.is_some() {}
        Ok(())
    }

    /// Says what an error of the registry means for lazy loading.
    async fn judge(&self, error: &Error, report: &mut Report) {
        let (image, host) = (self.image, self.image.registry());
        match error {
            Error::RangeIgnored { .. } => {
                let message =
                    format!("{host} ignores range requests, so nothing of {image} can be lazy: {error}");
                report.problem(Subject::Registry, "registry-without-ranges", message).advise(
                    "A proxy or mirror in front of the registry may be the cause; have it pass `Range` along, or take it \
                     out of hosts.toml.",
                );
            }
            Error::Credentials { .. } => {
                let message = format!("the login for {host} cannot be read: {error}");
                report.problem(Subject::Registry, "login-unreadable", message);
            }
            error if error.is_auth() => self.judge_login(error, report).await,
            Error::NotFound { .. } => {
                report.problem(Subject::Registry, "image-missing", format!("{image} is not there: {error}"));
            }
            error if error.is_transient() || matches!(error, Error::Tls { .. }) => {
                let message = format!("{host} cannot be reached: {error}");
                report.problem(Subject::Registry, "registry-unreachable", message).advise(
                    "Proxies are set in the service's environment (docs/configuration.md#proxies), mirrors and \
                     certificates in /etc/containerd/certs.d.",
                );
            }
            error => {
                report.problem(
                    Subject::Registry,
                    "registry-refuses",
                    format!("{host} refuses {image}: {error}"),
                );
            }
        }
    }

    async fn judge_login(&self, error: &Error, report: &mut Report) {
        let host = self.image.registry();
        let repository = self.image.repository();
        let login = self.logins.credential(repository.host(), repository.name()).await;
        let where_to = "The daemon has logins of its own, which are not those of the client that pulls: `docker login` as \
                        root for the service of systemd (DOCKER_CONFIG=/root/.docker), or a keychain \
                        (docs/kubernetes.md#logins).";
        if matches!(login, Ok(Some(_))) {
            let message = format!("the daemon's login for {host} is refused: {error}");
            report.problem(Subject::Registry, "login-refused", message).advise(where_to);
        } else if self.keychains {
            let message = format!(
                "no login for {host} is in the daemon's files; whether its keychain has one cannot be seen from here: {error}"
            );
            report.warning(Subject::Registry, "login-missing", message).advise(where_to);
        } else {
            let message = format!("the daemon has no login for {host}, which is private: {error}");
            report.problem(Subject::Registry, "login-missing", message).advise(where_to);
        }
    }
}
