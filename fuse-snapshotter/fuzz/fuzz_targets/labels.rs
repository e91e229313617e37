//! Labels of a snapshot of anybody: they name a layer of an image, or are refused.
//!
//! The input is values, one a line: image, manifest, layer and index.
#![no_main]

use fuse_snapshotter::snapshotter::pull::LayerRequest;
use fuse_snapshotter::snapshotter::labels;
use fuse_snapshotter::snapshotter::store::Labels;
use libfuzzer_sys::fuzz_target;
use testdata::{golden, seeds};

const KEYS: [&str; 4] =
    [labels::IMAGE_REF, labels::MANIFEST_DIGEST, labels::LAYER_DIGEST, labels::INDEX_DIGEST];

fn seeds() -> Vec<String> {
    let digests: Vec<_> = golden::load().layers.into_values().map(|layer| layer.digest).collect();
    let lines = |image: &str, count: usize| {
        let digests = digests.iter().take(count).map(String::as_str);
        [image].into_iter().chain(digests).collect::<Vec<_>>().join("\n")
    };
    vec![
        lines("docker.io/library/redis:7", 2),
        lines("registry.example.com:5000/team/app@sha256:00", 3),
        lines("[::1]:5000/app:v1", 3),
    ]
}

fuzz_target!(init: seeds::write_if_asked(seeds), |text: &str| {
    let values = text.split('\n').filter(|value| !value.is_empty()).map(str::to_owned);
    let given: Labels = KEYS.map(str::to_owned).into_iter().zip(values).collect();
    match LayerRequest::new("default", "sha256:chain", &given) {
        Ok(request) => {
            assert_eq!(request.manifest.as_str(), given[labels::MANIFEST_DIGEST]);
            assert_eq!(request.layer.as_str(), given[labels::LAYER_DIGEST]);
            assert_eq!(request.index.is_some(), given.contains_key(labels::INDEX_DIGEST));
        }
        // The message goes to containerd and into the log.
        Err(error) => assert!(error.to_string().len() < 16 << 10),
    }
});
