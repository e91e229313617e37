//! The daemon around the snapshotter: configuration, logins, gRPC, logging, status, and the examination of a node.

pub mod config;
pub mod grpc;
pub mod keychain;
pub mod logging;
pub mod metrics_server;
pub mod node;
pub mod status;
