//! Builds the zTOC of a layer in one pass and writes it to a file.
//!
//! ```sh
//! cargo run -p ztoc --example build -- testdata/golden/layers/gnu.tar.gz target/gnu.ztoc
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use bytes::Bytes;
use ztoc::{BuildOptions, Builder, Compression};

/// Bytes of the layer that are read at a time.
const CHUNK: usize = 1 << 20;

/// `arguments`: the file of the layer, and that of the zTOC.
pub(crate) fn run(arguments: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let [layer, ztoc] = arguments else { return Err("usage: build LAYER ZTOC".into()) };
    let mut layer = File::open(layer)?;
    let mut chunk = read_chunk(&mut layer)?;
    // The first bytes say how the layer is compressed.
    let mut builder = Builder::new(BuildOptions::new(Compression::sniff(&chunk)))?;
    while !chunk.is_empty() {
        builder.push(chunk)?;
        chunk = read_chunk(&mut layer)?;
    }
    let built = builder.finish()?;
    std::fs::write(ztoc, &built.bytes)?;
    writeln!(out, "layer   {} ({} bytes)", built.blob_digest, built.blob_size)?;
    writeln!(out, "zTOC    {} ({} bytes)", built.digest, built.bytes.len())?;
    writeln!(out, "holds   {} entries, {} spans", built.entries, built.spans)?;
    Ok(())
}

fn read_chunk(layer: &mut File) -> std::io::Result<Bytes> {
    let mut chunk = Vec::new();
    layer.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments, &mut std::io::stdout())
}
