//! Reads the first bytes of each layer of an image by ranged requests.
//!
//! ```sh
//! cargo run -p registry --example read_ranges -- testdata/golden/images/docker
//! ```
//!
//! The image is an OCI layout on disk. The example serves it from a registry of its own on the loopback interface, so it
//! needs no service. With another [`Reference`] the same calls read from any registry.

use std::error::Error;
use std::io::Write;

use futures::TryStreamExt;
use registry::{BlobReader, Client, ClientConfig, Descriptor, Reference};
use serde::Deserialize;
use testdata::registry::TestRegistry;

/// How many bytes of each layer are read.
const FIRST: u64 = 64;

/// The part of an image manifest that is needed here.
#[derive(Deserialize)]
struct ImageManifest {
    layers: Vec<Descriptor>,
}

/// `arguments`: the directory of an OCI layout with one image.
pub(crate) async fn run(arguments: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let [layout] = arguments else { return Err("usage: read_ranges LAYOUT".into()) };
    let server = TestRegistry::builder().start().await;
    server.put_layout("app", "v1", layout);
    let reference: Reference = format!("{}/app:v1", server.host()).parse()?;

    // Loopback hosts are spoken to by plain HTTP; everything else is the default.
    let client = Client::new(ClientConfig::default())?;
    let manifest = client.manifest(&reference).await?;
    writeln!(out, "manifest {}", manifest.digest)?;
    let manifest: ImageManifest = serde_json::from_slice(&manifest.bytes)?;
    for layer in manifest.layers {
        let blob = client.blob_reader(reference.repository(), layer.digest.clone(), layer.size);
        let mut read = 0;
        let mut pieces = blob.read_range(0..FIRST.min(layer.size)).await?;
        while let Some(piece) = pieces.try_next().await? {
            read += piece.len();
        }
        writeln!(out, "layer    {}: {read} of {} bytes", layer.digest, layer.size)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments, &mut std::io::stdout()).await
}
