//! An index manifest of anybody: it is refused, or what it names can be relied on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::{Descriptor, Digest};
use soci_index::manifest::{IndexManifest, IndexVersion, MAX_ZTOC_SIZE, ZtocKind};
use testdata::{golden, seeds};

/// Over the golden layers, in both versions, with a prefetch artifact.
fn seeds() -> Vec<Vec<u8>> {
    let golden = golden::load();
    let image = Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"image");
    let mut seeds = Vec::new();
    for kind in [ZtocKind::Common, ZtocKind::Zstd] {
        for version in [IndexVersion::V1, IndexVersion::V2] {
            let mut blobs = Vec::new();
            for layer in golden.layers.values().take(6) {
                let digest: Digest = layer.digest.parse().expect("a golden digest");
                let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
                let descriptor = Descriptor::new(media_type, digest.clone(), layer.size);
                for (span_size, ztoc) in layer.ztoc.iter().take(1) {
                    let of_ztoc = ztoc.digest.parse().expect("a golden digest");
                    blobs.push(kind.descriptor(
                        of_ztoc,
                        ztoc.size,
                        &descriptor,
                        *span_size,
                        layer.size % 2 == 0,
                    ));
                }
                blobs.push(IndexManifest::prefetch_descriptor(Digest::of(b"prefetch"), 100, &digest));
            }
            seeds.push(IndexManifest::new(version, blobs, Some(&image), &golden.tool).encode().to_vec());
        }
    }
    seeds.extend(seeds::documents());
    seeds
}

fuzz_target!(init: seeds::write_if_asked(seeds), |json: &[u8]| {
    let Ok(manifest) = IndexManifest::parse(json) else { return };
    for ztoc in manifest.ztocs() {
        let layer: Digest = ztoc.layer.parse().expect("the layer's digest was checked");
        assert!(ztoc.descriptor.size <= MAX_ZTOC_SIZE, "the size was checked");
        assert!(manifest.ztoc_of(&layer).is_some(), "a zTOC is found by its layer");
    }
    for prefetch in manifest.prefetches() {
        let layer: Digest = prefetch.layer.parse().expect("the layer's digest was checked");
        assert!(prefetch.descriptor.size <= MAX_ZTOC_SIZE && manifest.prefetch_of(&layer).is_some());
    }
    let _ = (manifest.recorded(), manifest.build_tool(), manifest.config());
    let encoded = manifest.encode();
    let again = IndexManifest::parse(&encoded).expect("what is written can be read");
    assert_eq!(again.encode(), encoded, "writing is canonical");
    assert_eq!(again.version, manifest.version);
});
