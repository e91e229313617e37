//! The daemon around the snapshotter: configuration, logins, gRPC, logging, status, the
//! examination of a node, and the command line.

pub mod cli;
pub mod config;
pub mod grpc;
pub mod keychain;
pub mod logging;
pub mod metrics_server;
pub mod node;
pub mod status;
