//! What to do after an error, where its message does not say so itself.

use std::io;

use crate::build::CreateError;
use crate::containerd::ContainerdError;
use crate::convert::ConvertError;
use crate::destination::DestinationError;
use crate::pull::PullError;
use crate::push::PushError;
use crate::source::SourceError;
use crate::store::StoreError;
use tonic::Code;

/// The hint for an error, if there is something useful to say.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<CreateError>() {
            return create(error);
        }
        if let Some(error) = cause.downcast_ref::<ConvertError>() {
            return match error {
                ConvertError::Create(error) => create(error),
                ConvertError::Source(error) => source(error),
                ConvertError::Store(error) => store(error),
                ConvertError::Destination(error) => destination(error),
                _ => None,
            };
        }
        if let Some(error) = cause.downcast_ref::<PushError>() {
            return match error {
                PushError::NoIndex(_) => Some("run `soci create` with the same image and platform first"),
                PushError::Store(error) => store(error),
                _ => None,
            };
        }
        if let Some(error) = cause.downcast_ref::<PullError>() {
            return match error {
                PullError::Containerd(error) => containerd(error),
                PullError::Source(error) => source(error.as_ref()),
                _ => None,
            };
        }
        if let Some(error) = cause.downcast_ref::<ContainerdError>() {
            return containerd(error);
        }
        cause
            .downcast_ref::<SourceError>()
            .and_then(source)
            .or_else(|| cause.downcast_ref::<StoreError>().and_then(store))
    })
}

fn create(error: &CreateError) -> Option<&'static str> {
    match error {
        CreateError::Empty => Some(
            "layers below --min-layer-size (10 MiB by default) are left out; `--min-layer-size 0` indexes all",
        ),
        CreateError::Source(error) => source(error),
        CreateError::Store(error) => store(error),
        _ => None,
    }
}

fn destination(error: &DestinationError) -> Option<&'static str> {
    match error {
        DestinationError::Source(error) => source(error),
        DestinationError::Store(error) => store(error),
        DestinationError::Containerd(error) => containerd(error),
        _ => None,
    }
}

fn containerd(error: &ContainerdError) -> Option<&'static str> {
    match error {
        ContainerdError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("containerd's socket belongs to root: try sudo")
        }
        ContainerdError::Connect { .. } => {
            Some("is containerd running? If its socket is elsewhere, say where: --address SOCKET")
        }
        ContainerdError::NoSnapshotter { name, .. } if name == "soci" => Some(
            "add the snapshotter to containerd's config.toml and restart containerd:\n  [proxy_plugins.soci]\n  type = \
             \"snapshot\"\n  address = \"/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock\"\nor pull with one that \
             containerd has: --snapshotter overlayfs",
        ),
        ContainerdError::NoSnapshotter { .. } => Some("choose one with --snapshotter"),
        ContainerdError::Refused { code: Code::Unavailable, operation, .. }
            if operation.contains("snapshot") =>
        {
            Some("the snapshotter does not answer: is soci-snapshotter-grpc running?")
        }
        _ => None,
    }
}

fn source(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::Platform { .. } => {
            Some("choose one with --platform, or take them all with --all-platforms")
        }
        SourceError::Containerd(error) => containerd(error),
        SourceError::Corrupt { .. } => Some("the image itself is damaged: copy or push it again"),
        _ => None,
    }
}

fn store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("choose a directory that you may write with --root, or run as its owner")
        }
        StoreError::Missing(_) => Some("`soci index list` and `soci ztoc list` show what is in the store"),
        _ => None,
    }
}
