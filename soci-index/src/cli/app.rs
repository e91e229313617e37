//! What the commands share: the store, and how to get at images.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::containerd::{self, Containerd, ContainerdError, Endpoint};
use crate::image::PlatformChoice;
use crate::registry_args::RegistryArgs;
use crate::source::{ContainerdSource, ImageSource, LayoutSource, RegistrySource, SourceSpec};
use crate::store::{self, Store};
use anyhow::bail;
use registry::Client;

use crate::cli::args::{ContentStore, Globals, ImageArg, PlatformArgs};
use crate::cli::output::Output;

/// One run of the program.
pub(crate) struct App {
    pub(crate) output: Arc<Output>,
    root: PathBuf,
    endpoint: Endpoint,
    /// Whether containerd may be asked for images and artifacts.
    use_containerd: bool,
    /// Whether the user named containerd, and so wants to know if it does not answer.
    expects_containerd: bool,
}

impl App {
    pub(crate) fn new(globals: Globals, output: &Arc<Output>) -> Self {
        let address = globals.address.as_deref().unwrap_or(containerd::DEFAULT_ADDRESS);
        Self {
            output: Arc::clone(output),
            root: globals.root.unwrap_or_else(store::default_root),
            endpoint: Endpoint::new(address, &globals.namespace),
            use_containerd: globals.content_store != Some(ContentStore::Soci),
            expects_containerd: globals.address.is_some() || globals.content_store.is_some(),
        }
    }

    /// containerd, for commands that cannot do without.
    pub(crate) async fn containerd(&self) -> anyhow::Result<Containerd> {
        Ok(self.endpoint.connect().await?)
    }

    /// Whether artifacts of an image that containerd has go to containerd.
    pub(crate) fn keeps_in_containerd(&self) -> bool {
        self.use_containerd
    }

    /// The image in containerd, if containerd answers and has it; says which it is unless `quiet`. Where there is no
    /// containerd, nothing is said and nothing waited for.
    pub(crate) async fn in_containerd(
        &self,
        image: &ImageArg,
        quiet: bool,
    ) -> anyhow::Result<Option<(Containerd, ContainerdSource)>> {
        if !(self.use_containerd && image.may_be_in_containerd()) {
            return Ok(None);
        }
        let say = |text: std::fmt::Arguments<'_>| {
            if !quiet {
                self.output.note(text);
            }
        };
        let containerd = match self.endpoint.connect().await {
            Ok(containerd) => containerd,
            Err(ContainerdError::Connect { source, .. })
                if !self.expects_containerd
                    && matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
            {
                tracing::debug!(endpoint = %self.endpoint, "no containerd here");
                return Ok(None);
            }
            Err(error) => {
                say(format_args!("{error}; reading {} from its registry", image.spec));
                return Ok(None);
            }
        };
        let found = ContainerdSource::find(&containerd, &image.text).await;
        match found {
            Ok(Some(source)) => {
                say(format_args!("reading {} from {}", source.image_name(), self.endpoint));
                Ok(Some((containerd, source)))
            }
            Ok(None) => {
                say(format_args!(
                    "{} does not have {}; reading it from its registry",
                    self.endpoint, image.spec
                ));
                Ok(None)
            }
            Err(error) => {
                say(format_args!("{error}; reading {} from its registry", image.spec));
                Ok(None)
            }
        }
    }

    /// The image `name`, which has to be in containerd.
    pub(crate) async fn of_containerd(&self, name: &str) -> anyhow::Result<(Containerd, ContainerdSource)> {
        let containerd = self.containerd().await?;
        match ContainerdSource::find(&containerd, name).await? {
            Some(source) => Ok((containerd, source)),
            None => bail!(
                "{} has no image {name}; `ctr --namespace {} image ls` shows what it has",
                self.endpoint,
                self.endpoint.namespace()
            ),
        }
    }

    /// The directory of the artifact store, and of the snapshotter unless that has another one.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The artifact store.
    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        let store = Store::open(&self.root)?;
        if store.has_reference_state() && store.is_new() {
            self.output.note(format_args!(
                "{} holds the state of awslabs/soci-snapshotter (artifacts.db). It is left as it is, and its indexes are \
                 not listed here: run `soci create` again for the images you need (pushed indexes go on working). When \
                 nothing uses it any more, delete artifacts.db.",
                self.root.display()
            ));
        }
        Ok(if self.use_containerd { store.reading_containerd(self.endpoint.clone()) } else { store })
    }

    /// Opens an image where its text says that it is; a reference means a registry.
    pub(crate) async fn image(
        &self,
        spec: SourceSpec,
        registry: &RegistryArgs,
    ) -> anyhow::Result<Arc<dyn ImageSource>> {
        Ok(match spec.absolute() {
            SourceSpec::Registry(reference) => {
                Arc::new(RegistrySource::new(client(registry, reference.registry())?, reference))
            }
            SourceSpec::Layout(path, selector) => Arc::new(LayoutSource::directory(path, selector)?),
            SourceSpec::Archive(path, selector) => Arc::new(LayoutSource::archive(path, selector)?),
            SourceSpec::Containerd(name) => Arc::new(self.of_containerd(&name).await?.1),
        })
    }
}

/// A client for the registry `host` with the user's settings.
pub(crate) fn client(args: &RegistryArgs, host: &str) -> anyhow::Result<Client> {
    Ok(args.client(host, concat!("soci/", env!("CARGO_PKG_VERSION")))?)
}

impl PlatformArgs {
    pub(crate) fn choice(&self) -> PlatformChoice {
        if self.all_platforms {
            PlatformChoice::All
        } else if self.platform.is_empty() {
            PlatformChoice::Host
        } else {
            PlatformChoice::These(self.platform.clone())
        }
    }
}

/// Whether a recorded image name is the one a user means: the same text, or the same source in another form. What was read
/// from containerd is recorded under the image's name alone.
pub(crate) fn names_image(recorded: &str, given: &str) -> bool {
    let given = given.strip_prefix("containerd:").unwrap_or(given);
    let recorded = recorded.strip_prefix("containerd:").unwrap_or(recorded);
    let normal = || given.parse::<SourceSpec>().map(|spec| spec.absolute().to_string());
    recorded == given || normal().is_ok_and(|normal| normal == recorded)
}
