//! Seeds of fuzz targets, made of the golden vectors when they are needed.
//!
//! A fuzz target knows the form of its input, so it makes its own seeds. `scripts/fuzz` starts it once with the
//! variable `FUZZ_SEEDS` set to a directory: the target writes its seeds there and ends before anything is fuzzed.

use std::path::PathBuf;

use crate::golden;

/// Longest seed, in bytes. libFuzzer is asked for inputs of at most this length: longer ones cost speed, and what the
/// targets parse has all its forms in less.
pub const MAX_SIZE: usize = 8192;

/// Writes `seeds`, cut to [`MAX_SIZE`], and ends the process if `FUZZ_SEEDS` names a directory; otherwise does nothing.
///
/// # Panics
/// If the directory cannot be written to.
pub fn write_if_asked<S: AsRef<[u8]>>(seeds: impl FnOnce() -> Vec<S>) {
    let Some(directory) = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (number, seed) in seeds().iter().enumerate() {
        let seed = seed.as_ref();
        let seed = &seed[..seed.len().min(MAX_SIZE)];
        std::fs::write(directory.join(format!("seed-{number:03}")), seed).expect("a seed can be written");
    }
    std::process::exit(0);
}

/// All golden layers, good and bad, with their names.
///
/// # Panics
/// If the golden vectors are not there.
pub fn layers() -> Vec<(String, Vec<u8>)> {
    let golden = golden::load();
    golden
        .layers
        .into_keys()
        .chain(golden.refused.into_keys())
        .map(|name| (name.clone(), golden::layer(&name)))
        .collect()
}

/// The uncompressed archives of the golden layers, as far as they can be inflated.
pub fn archives() -> Vec<Vec<u8>> {
    use std::io::Read;
    let inflate = |(name, layer): (String, Vec<u8>)| {
        if !name.ends_with(".gz") {
            return layer;
        }
        let mut archive = Vec::new();
        // What comes before the damage in a damaged layer is a seed as good as others.
        let _ = flate2::read::MultiGzDecoder::new(&layer[..]).read_to_end(&mut archive);
        archive
    };
    layers().into_iter().map(inflate).collect()
}

/// The JSON documents of the golden images: indexes, manifests and configurations.
///
/// # Panics
/// If the golden vectors are not there.
pub fn documents() -> Vec<Vec<u8>> {
    let mut documents = Vec::new();
    for name in golden::load().images.into_keys() {
        let blobs = golden::image_dir(&name).join("blobs/sha256");
        let blobs = std::fs::read_dir(blobs).expect("blobs of a golden image");
        let blobs =
            blobs.map(|blob| std::fs::read(blob.expect("a blob").path()).expect("a blob can be read"));
        documents.extend(blobs.filter(|blob| blob.starts_with(b"{")));
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_vectors_give_seeds_of_every_kind() {
        assert_eq!(layers().len(), 28);
        let archives = archives();
        assert_eq!(archives.len(), 28);
        assert!(archives.iter().filter(|archive| archive.get(257..262) == Some(b"ustar")).count() > 20);
        let documents = documents();
        let has = |key: &str| documents.iter().any(|json| String::from_utf8_lossy(json).contains(key));
        assert!(has("\"manifests\"") && has("\"layers\"") && has("\"rootfs\""));
    }
}
