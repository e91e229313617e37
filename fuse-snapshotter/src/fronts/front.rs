//! The ways to show a tree to the kernel.

/// What the kernel asks for the names and attributes of lazily read layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Front {
    /// [`Front::Erofs`] where that is possible, else [`Front::Fuse`].
    #[default]
    Auto,
    /// Itself: they are in an [EROFS image](crate::fronts::erofs), and only contents come through FUSE.
    Erofs,
    /// This process, through FUSE.
    Fuse,
}
