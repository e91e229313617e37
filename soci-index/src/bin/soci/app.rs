//! What the commands share: the store, and how to get at images.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use registry::Client;
use soci_index::image::PlatformChoice;
use soci_index::registry_args::RegistryArgs;
use soci_index::source::{ImageSource, LayoutSource, RegistrySource, SourceSpec};
use soci_index::store::{self, Store};

use crate::args::{ContentStore, Globals, PlatformArgs};
use crate::output::Output;

/// One run of the program.
pub(crate) struct App {
    pub(crate) output: Arc<Output>,
    root: PathBuf,
}

impl App {
    pub(crate) fn new(globals: Globals, output: &Arc<Output>) -> anyhow::Result<Self> {
        if globals.content_store == ContentStore::Containerd {
            bail!(
                "--content-store containerd is not supported yet; leave it out to keep artifacts under --root, where \
                 soci-snapshotter-grpc finds them"
            );
        }
        let address = globals.address.strip_prefix("unix://").unwrap_or(&globals.address);
        tracing::debug!(address, namespace = globals.namespace, "containerd is not used");
        Ok(Self { output: Arc::clone(output), root: globals.root.unwrap_or_else(store::default_root) })
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
        Ok(store)
    }

    /// Opens an image.
    pub(crate) fn image(
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

/// Whether a recorded image name is the one a user means: the same text, or the same source in another form.
pub(crate) fn names_image(recorded: &str, given: &str) -> bool {
    let normal = || given.parse::<SourceSpec>().map(|spec| spec.absolute().to_string());
    recorded == given || normal().is_ok_and(|normal| normal == recorded)
}
