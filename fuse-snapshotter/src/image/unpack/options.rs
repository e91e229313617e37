//! How a layer is unpacked, and what it may ask for.

/// How whiteouts and opaque directories are marked, which depends on how overlayfs will be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// Character devices 0:0, and `trusted.overlay.opaque`: needs CAP_SYS_ADMIN.
    #[default]
    Overlay,
    /// Character devices 0:0, and `user.overlay.opaque`, for overlayfs mounted with `userxattr`.
    UserXattr,
}

/// Bounds on what a layer may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that the layer may have uncompressed. The default, 1 TiB, is above any real layer.
    pub uncompressed_size: u64,
    /// Most entries. The default is 2^24.
    pub entries: u64,
    /// Largest file, in bytes, holes included. The default is 16 TiB, which is also ext4's.
    pub file_size: u64,
    /// Most regions in the map of one sparse file. The default, 2^20, takes 16 MiB of memory.
    pub sparse_regions: usize,
    /// Most bytes of memory for the attributes of directories, which are written last. The default is 512 MiB,
    /// for about three million directories.
    pub directory_memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uncompressed_size: 1 << 40,
            entries: 1 << 24,
            file_size: 1 << 44,
            sparse_regions: 1 << 20,
            directory_memory: 512 << 20,
        }
    }
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct Options {
    /// How whiteouts are marked.
    pub whiteouts: Whiteouts,
    /// Whether files get the owners that the layer gives them. Without it everything belongs to the caller, and
    /// device nodes and extended attributes that an ordinary user may not make are left out with a warning.
    pub ownership: bool,
    /// Bounds on the layer.
    pub limits: Limits,
}

impl Default for Options {
    /// For overlayfs mounted by root if the process is root, with `userxattr` and without owners if not.
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            whiteouts: if root { Whiteouts::Overlay } else { Whiteouts::UserXattr },
            ownership: root,
            limits: Limits::default(),
        }
    }
}
