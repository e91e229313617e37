//! The snapshotter that containerd talks to.
//!
//! [`store`] remembers which snapshots there are, whose children they are and how each is served; [`filter`] is the
//! language in which clients ask for some of them. [`Snapshotter`] does what containerd asks: `prepare` decides how a layer
//! is served, `mounts` says what a snapshot is stacked from, with the lazy layers of a chain merged into `trees`, `idmap`
//! gives containers in user namespaces directories with their own ids, and `cleanup` gives back what nobody uses any more.
//!
//! No transaction of the store is open while anything else is done: fetching, unpacking, mounting, measuring.

pub mod filter;
pub mod labels;
pub mod pull;
pub mod store;

mod calls;
mod cleanup;
mod commit_layer;
mod counting;
mod directories;
mod error;
mod idmap;
mod keyed_lock;
mod layer_runs;
mod layout;
mod metrics;
mod mount_ahead;
mod mounts;
mod number_spaces;
mod open;
mod options;
mod prepare;
mod rebase;
mod record;
mod restart;
mod root;
mod seek;
mod service;
mod sources;
mod starts;
#[cfg(test)]
mod tests;
mod trees;

pub use error::{RootProblem, SnapshotError};
pub use idmap::IdMapping;
pub use layout::Layout;
pub use mounts::Mount;
pub use options::Options;
pub use prepare::Prepared;
pub use record::{Record, RecordedMode};
pub(crate) use root::try_root;
pub use service::Snapshotter;
pub use trees::Trees;
