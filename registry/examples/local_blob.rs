//! Reads a range of a local file through [`BlobReader`], the trait that blobs of a registry have as well.
//!
//! ```sh
//! cargo run -p registry --example local_blob -- testdata/golden/layers/plain.tar 257 5
//! ```

use std::error::Error;
use std::io::Write;

use futures::TryStreamExt;
use registry::{BlobReader, Digest, FileBlob};

/// `arguments`: the file, the offset of the first byte, and the number of bytes.
pub(crate) async fn run(arguments: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let [path, offset, length] = arguments else { return Err("usage: local_blob FILE OFFSET LENGTH".into()) };
    let (offset, length): (u64, u64) = (offset.parse()?, length.parse()?);
    let end = offset.checked_add(length).ok_or("the range is out of bounds")?;
    // A file in an OCI layout is named by its digest. Here it has to be computed.
    let digest = Digest::of(&std::fs::read(path)?);
    let blob = FileBlob::open(path, digest)?;
    let mut pieces = blob.read_range(offset..end).await?;
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments, &mut std::io::stdout()).await
}
