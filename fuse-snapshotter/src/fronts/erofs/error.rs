//! Why EROFS cannot be used.

/// Why a tree cannot be mounted this way. FUSE can always serve it.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// Ordinary users cannot mount it.
    #[error("only root can mount EROFS")]
    NotRoot,
    /// The tree has something that the format does not know.
    #[error("an EROFS image cannot have {0}")]
    Inexpressible(&'static str),
    /// The image of the metadata.
    #[error("cannot write the EROFS image")]
    Image(#[from] std::io::Error),
    /// The kernel does not do it.
    #[error(
        "the kernel cannot {what}: {error}{said} (EROFS from files needs Linux 6.12 or later with \
         CONFIG_EROFS_FS_BACKED_BY_FILE, and a --root that is neither on tmpfs nor on overlayfs)"
    )]
    Kernel {
        /// What it was to do.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
        /// What else it said; empty, or in brackets.
        said: String,
    },
    /// FUSE, which serves the contents.
    #[error("cannot serve the contents: {0}")]
    Serve(std::io::Error),
}
