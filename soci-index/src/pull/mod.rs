//! Pulling an image into containerd through a snapshotter.
//!
//! This is what nerdctl and containerd's own client do: manifests and configuration go to the content store with the labels
//! that keep what they name; then each layer's snapshot is prepared, lowest first, with labels that tell a remote
//! snapshotter which layer of which image it is to hold. If it has or gets the layer itself, nothing is downloaded. If it
//! gives a place to unpack to, the layer is downloaded, containerd unpacks it, and what came out is compared with the image's
//! configuration. The image's name comes last, so that nobody sees an image that is not complete.
//!
//! All of it happens under a lease. A pull that fails or is dropped leaves nothing that containerd would not collect.

mod puller;
mod error;
mod outcome;
mod unpack;

use std::sync::Arc;

use bytes::Bytes;
use registry::{Descriptor, Digest, DigestHasher, Repository};
use serde::Deserialize;

use crate::containerd::labels::{self, Labels};
use crate::containerd::{Containerd, ContainerdError, Lease};
use crate::image::{self, PlatformChoice};
use crate::manifest::{INDEX_DIGEST, IndexManifest};
use crate::oci::{self, DocumentError, ImageIndex, ImageManifest, MAX_CONFIG_SIZE};
use crate::platform::Platform;
use crate::source::{ImageSource, RegistrySource, SourceError};

pub use unpack::{LABEL_INDEX_DIGEST, LABEL_LAYER_SIZE, LABEL_LAYER_SIZES};
pub use outcome::{LayerOutcome, PullEvent, PullProgress, PulledLayer};
pub use error::{PullError};
pub use puller::{DEFAULT_CONCURRENT_DOWNLOADS, PullOptions, Pulled, pull};
use puller::{Config, MAX_INDEXES, Puller, RootFs, chain_ids, diff_ids, document};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let ids = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], ids[2]).as_bytes()));
    }

    #[test]
    fn layers_and_diff_ids_have_to_agree() {
        let digest = Digest::of(b"x");
        let descriptor = Descriptor::new(oci::IMAGE_MANIFEST, digest.clone(), 1);
        let json = format!(
            r#"{{"config":{{"mediaType":"c","digest":"{digest}","size":1}},"layers":[{{"mediaType":"l","digest":"{digest}","size":1}}]}}"#
        );
        let manifest = ImageManifest::parse(json.as_bytes()).unwrap();
        let ids = |config: &str| diff_ids(&descriptor, &manifest, config.as_bytes());
        assert_eq!(ids(&format!(r#"{{"rootfs":{{"diff_ids":["{digest}"]}}}}"#)).unwrap(), [digest]);
        for (config, words) in [
            ("{}", "missing field `rootfs`"),
            (r#"{"rootfs":{}}"#, "the manifest has 1 layers, and the configuration 0"),
            (r#"{"rootfs":{"diff_ids":["sha256:../x"]}}"#, "malformed"),
            ("[", "malformed"),
        ] {
            let error = ids(config).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
