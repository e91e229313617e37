//! How a tree stands over other layers that overlayfs stacks below it.

/// What lies below the layers of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nothing: whiteouts and opaque markers have done their work once the layers are merged.
    Nothing,
    /// Other layers, stacked by overlayfs: whiteouts are shown as character devices 0:0 and opaque
    /// directories carry the overlayfs attribute of this namespace, and so do directories with whiteouts. For the root
    /// see [`Tree::hides_all_below`](super::Tree::hides_all_below).
    Layers(OverlayNamespace),
}

/// Which extended attributes overlayfs uses for its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayNamespace {
    /// `trusted.overlay.*`, the default.
    Trusted,
    /// `user.overlay.*`, for mounts with the option `userxattr`.
    User,
}

impl OverlayNamespace {
    /// Name of the attribute that marks a directory as opaque (value `y`).
    #[must_use]
    pub fn opaque_attribute(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.opaque",
            Self::User => b"user.overlay.opaque",
        }
    }

    /// Name of the attribute that says that a directory was merged with one below once, and so may contain
    /// whiteouts (value empty).
    #[must_use]
    pub fn origin_attribute(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.origin",
            Self::User => b"user.overlay.origin",
        }
    }
}
