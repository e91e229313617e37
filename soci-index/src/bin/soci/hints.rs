//! What to do after an error, where its message does not say so itself.

use std::io;

use soci_index::build::CreateError;
use soci_index::push::PushError;
use soci_index::source::SourceError;
use soci_index::store::StoreError;

/// The hint for an error, if there is something useful to say.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<CreateError>() {
            return match error {
                CreateError::Empty => Some(
                    "layers below --min-layer-size (10 MiB by default) are left out; `--min-layer-size 0` indexes all",
                ),
                CreateError::Source(error) => source(error),
                CreateError::Store(error) => store(error),
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
        cause
            .downcast_ref::<SourceError>()
            .and_then(source)
            .or_else(|| cause.downcast_ref::<StoreError>().and_then(store))
    })
}

fn source(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::Platform { .. } => {
            Some("choose one with --platform, or take them all with --all-platforms")
        }
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
