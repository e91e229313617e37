//! The snapshotter that containerd talks to.
//!
//! * `service` is the [`Snapshotter`], which `open` puts together; `calls` and `prepare` do what containerd asks of it.
//! * [`store`] remembers which snapshots there are, whose children they are and how each is served (`record`); [`filter`]
//!   is the language in which clients ask for some of them; [`labels`] are the words of containerd's labels.
//! * [`pull`] makes the layers of an image ready; `commit_layer` commits those that are, `mount_ahead` mounts the image when
//!   all are there, and `rebase` is for layers that are prepared without those below them.
//! * `mounts` says what a snapshot is stacked from, with the lazy layers of a chain (`layer_runs`) merged into `trees`;
//!   `idmap` gives containers in user namespaces directories with their own ids.
//! * `sources` and `seek` know which other repositories have the layers of a snapshot.
//! * `layout` names all directories below the root, `root` asks whether a directory can be one, `number_spaces` has the
//!   numbers that inode numbers are made of.
//! * `restart` finds what a process before this one left, and `cleanup` gives back what nobody uses any more.
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
pub use options::{FetchOptions, Options, Settings, TreeOptions};
pub use prepare::Prepared;
pub use record::{Record, RecordedMode};
pub(crate) use root::try_root;
pub use service::Snapshotter;
pub use trees::Trees;
