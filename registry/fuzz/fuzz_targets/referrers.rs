//! A list of referrers of anybody, from the API or under the fallback tag; and the `Link` to its next page.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::fuzzing::{add_referrer, next_link, referrers};
use registry::{Descriptor, Digest};
use testdata::seeds;

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = seeds::documents();
    let mut entry = Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"index");
    entry.artifact_type = Some("application/vnd.amazon.soci.index.v1+json".to_owned());
    entry
        .annotations
        .insert("com.amazon.soci.build-tool-identifier".to_owned(), "AWS SOCI CLI v0.2".to_owned());
    seeds.extend(add_referrer(b"", &entry));
    seeds.push(br#"{"schemaVersion":2,"manifests":null}"#.to_vec());
    seeds.push(br#"</v2/app/referrers/sha256:00?n=1&last=2>; rel="next"; title="x""#.to_vec());
    seeds
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    if let Some(listed) = referrers(data) {
        for entry in &listed {
            assert!(entry.digest.as_str().parse::<Digest>().is_ok(), "digests were checked");
        }
        let entry = Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"one more");
        if let Some(added) = add_referrer(data, &entry) {
            let now = referrers(&added).expect("what is written is a list");
            let others = listed.iter().filter(|other| other.digest != entry.digest);
            assert!(others.chain([&entry]).eq(&now), "nobody else's entry is lost");
            assert_eq!(add_referrer(&added, &entry), None, "an entry is added once");
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(target) = next_link(text)
    {
        assert!(text.contains(&target) && !target.contains('>'));
    }
});
