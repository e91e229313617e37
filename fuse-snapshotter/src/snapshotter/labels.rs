//! Labels of snapshots: an interface between containerd, its clients and snapshotters.

/// Chain ID that a snapshot is to be committed as: it is being prepared for a layer of an image, not for a container.
pub const TARGET: &str = "containerd.io/snapshot.ref";
/// The image's reference.
pub const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
/// Digest of the compressed layer.
pub const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
/// Digest of the image manifest.
pub const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// Digest of the SOCI index to use.
pub const INDEX_DIGEST: &str = "containerd.io/snapshot/remote/soci.index.digest";
/// The layer's `diff_id`; from containerd 2.3 on.
pub const DIFF_ID: &str = "containerd.io/snapshot/diff-id";
/// User ids of a container's user namespace, `container:host:size[,…]`.
pub const UID_MAPPING: &str = "containerd.io/snapshot/uidmapping";
/// Group ids of a container's user namespace.
pub const GID_MAPPING: &str = "containerd.io/snapshot/gidmapping";

/// Written: the namespace that the snapshot was made in.
pub const NAMESPACE: &str = "containerd.io/snapshot/remote/namespace";
/// Written: the layer is read lazily.
pub const REMOTE: &str = "containerd.io/snapshot/remote";
/// Value of [`REMOTE`].
pub const REMOTE_VALUE: &str = "remote snapshot";
/// Written on an active snapshot: it is a layer that has others below it, but gets its parent only when it is
/// committed.
pub const PARENT_LATER: &str = "containerd.io/snapshot/remote/soci.parent-later";
/// Written: the image has a SOCI index.
pub const HAS_INDEX: &str = "containerd.io/snapshot/remote/has.soci.index.digest";
