//! The part of containerd's gRPC API that this project uses: clients of all services, and the server side of
//! `containerd.services.snapshots.v1`, which a snapshotter is. Of Kubernetes' CRI, the messages that hold logins.
//!
//! The definitions in `proto/` are our own text; names and field numbers are those of containerd's API (1.6 to 2.x), of
//! which they are a part. Fields that are left out are ignored when read.
//!
//! `generated/` is made from them by a test (`tests/generated.rs`), so that a build needs neither `protoc` nor another
//! compiler of definitions: these take longer to build than the rest of this crate.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

/// `containerd.types`.
pub mod types {
    include!("generated/containerd.types.rs");
}

/// Kubernetes' container runtime interface, as far as the snapshotter looks into it.
pub mod cri {
    use std::fmt;

    include!("generated/runtime.v1.rs");

    impl fmt::Debug for AuthConfig {
        /// Shows no secret.
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for PullImageRequest {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("PullImageRequest").field("image", &self.image).field("auth", &self.auth).finish()
        }
    }
}

/// `containerd.services`, version 1 of each.
pub mod services {
    /// The snapshots service.
    pub mod snapshots {
        pub mod v1 {
            include!("generated/containerd.services.snapshots.v1.rs");
        }
    }
    /// The content store.
    pub mod content {
        pub mod v1 {
            include!("generated/containerd.services.content.v1.rs");
        }
    }
    /// Names of images.
    pub mod images {
        pub mod v1 {
            include!("generated/containerd.services.images.v1.rs");
        }
    }
    /// Leases.
    pub mod leases {
        pub mod v1 {
            include!("generated/containerd.services.leases.v1.rs");
        }
    }
    /// Applying layers.
    pub mod diff {
        pub mod v1 {
            include!("generated/containerd.services.diff.v1.rs");
        }
    }
    /// Plugins.
    pub mod introspection {
        pub mod v1 {
            include!("generated/containerd.services.introspection.v1.rs");
        }
    }
    /// Version.
    pub mod version {
        pub mod v1 {
            include!("generated/containerd.services.version.v1.rs");
        }
    }
}
