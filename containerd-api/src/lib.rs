//! The part of containerd's gRPC API that this project uses: clients of all services, and the server side of
//! `containerd.services.snapshots.v1`, which a snapshotter is. Of Kubernetes' CRI, the messages that hold logins.
//!
//! The definitions in `proto/` are our own text; names and field numbers are those of containerd's API (1.6 to 2.x), of
//! which they are a part. Fields that are left out are ignored when read.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

/// `containerd.types`.
pub mod types {
    tonic::include_proto!("containerd.types");
}

/// Kubernetes' container runtime interface, as far as the snapshotter looks into it.
pub mod cri {
    use std::fmt;

    tonic::include_proto!("runtime.v1");

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
            tonic::include_proto!("containerd.services.snapshots.v1");
        }
    }
    /// The content store.
    pub mod content {
        pub mod v1 {
            tonic::include_proto!("containerd.services.content.v1");
        }
    }
    /// Names of images.
    pub mod images {
        pub mod v1 {
            tonic::include_proto!("containerd.services.images.v1");
        }
    }
    /// Leases.
    pub mod leases {
        pub mod v1 {
            tonic::include_proto!("containerd.services.leases.v1");
        }
    }
    /// Applying layers.
    pub mod diff {
        pub mod v1 {
            tonic::include_proto!("containerd.services.diff.v1");
        }
    }
    /// Plugins.
    pub mod introspection {
        pub mod v1 {
            tonic::include_proto!("containerd.services.introspection.v1");
        }
    }
    /// Version.
    pub mod version {
        pub mod v1 {
            tonic::include_proto!("containerd.services.version.v1");
        }
    }
}
