//! Blobs: ranged reads, whole ones, uploads.

mod file;
mod open_body;
mod pull;
mod push;
mod range;
mod read;
mod reader;
mod remote;
pub(crate) mod straggler;
mod stream;

pub use file::FileBlob;
pub use reader::BlobReader;
pub use remote::RegistryBlob;
