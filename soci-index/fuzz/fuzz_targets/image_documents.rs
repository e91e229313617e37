//! Manifests, indexes and configurations of images of anybody.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::Descriptor;
use soci_index::canonical_json;
use soci_index::oci::{ImageConfig, ImageIndex, ImageManifest};
use soci_index::platform::Platform;
use testdata::seeds;

fn check<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) {
    for descriptor in descriptors {
        assert!(i64::try_from(descriptor.size).is_ok(), "sizes are those that Go can read");
    }
}

fuzz_target!(init: seeds::write_if_asked(seeds::documents), |json: &[u8]| {
    let manifest = ImageManifest::parse(json);
    let index = ImageIndex::parse(json);
    if let Ok(manifest) = &manifest {
        check(manifest.layers.iter().chain([&manifest.config]).chain(&manifest.subject));
        let encoded = manifest.encode();
        let again = ImageManifest::parse(&encoded).expect("what is written can be read");
        assert_eq!(again.encode(), encoded, "writing is canonical");
    }
    if let Ok(index) = &index {
        check(index.manifests.iter().chain(&index.subject));
        let encoded = index.encode();
        let again = ImageIndex::parse(&encoded).expect("what is written can be read");
        assert_eq!(again.encode(), encoded, "writing is canonical");
        for platform in index.manifests.iter().filter_map(|manifest| manifest.platform.as_ref()) {
            let platform = Platform::from(platform);
            assert!(platform.matches(&platform));
        }
    }
    if let Ok(config) = ImageConfig::parse(json) {
        let count = config.rootfs.diff_ids.len();
        assert_eq!(config.rootfs.chain_id(count).is_some(), count > 0);
        assert!(config.rootfs.chain_id(count + 1).is_none());
    }
    let _ = canonical_json::indent(json);
});
