//! What containerd says of itself: its version, and its plugins.

use std::collections::BTreeMap;

use containerd_api::services::introspection::v1::PluginsRequest;
use containerd_api::services::introspection::v1::introspection_client::IntrospectionClient;
use containerd_api::services::version::v1::version_client::VersionClient;

use super::connection::{Containerd, FIRST_ANSWER, PATIENCE, call};
use super::error::ContainerdError;

/// A plugin of containerd, as it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plugin {
    /// Its type, such as `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// Its name among those of its type.
    pub id: String,
    /// What it tells others; of a snapshotter behind a socket, `address` too.
    pub exports: BTreeMap<String, String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Why it does not work, if so.
    pub error: Option<String>,
}

impl Containerd {
    /// Its version, as it says it: `2.1.5`, `1.6.20~ds1`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<String, ContainerdError> {
        let mut client = VersionClient::new(self.channel());
        let answer = call("version", Some(FIRST_ANSWER), client.version(self.request(()))).await?;
        Ok(crate::text::excerpt(&answer.version))
    }

    /// All plugins.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ContainerdError> {
        self.plugins_matching(Vec::new()).await
    }

    /// Plugins that match one of `filters`, or all without any.
    pub(super) async fn plugins_matching(
        &self,
        filters: Vec<String>,
    ) -> Result<Vec<Plugin>, ContainerdError> {
        let mut client = IntrospectionClient::new(self.channel());
        let request = self.request(PluginsRequest { filters });
        let answer = call("list plugins", Some(PATIENCE), client.plugins(request)).await?;
        let plugin = |plugin: containerd_api::services::introspection::v1::Plugin| Plugin {
            kind: plugin.r#type,
            id: plugin.id,
            exports: plugin.exports.into_iter().collect(),
            capabilities: plugin.capabilities,
            error: plugin.init_err.map(|error| crate::text::excerpt(&error.message)),
        };
        Ok(answer.plugins.into_iter().map(plugin).collect())
    }
}
