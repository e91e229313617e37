//! The project's golden layers: everything that the reference accepts unpacks.

use super::*;

/// Of what the reference refuses, only these two are broken in ways that do not concern unpacking.
const UNPACKED_THOUGH_REFUSED: [&str; 2] = ["global-pax.tar.gz", "zero-padding-after-last-member.tar.gz"];

fn uncompressed(layer: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    if LayerFormat::sniff(layer) == LayerFormat::Tar {
        return layer.to_vec();
    }
    // The reference inflater for this: flate2's own reader of many members.
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(layer), &mut plain).unwrap();
    plain
}

#[test]
fn golden_layers() {
    if !is_root() {
        return;
    }
    let golden = testdata::golden::load();
    for name in golden.layers.keys() {
        let layer = testdata::golden::layer(name);
        let plain = uncompressed(&layer);
        let (target, unpacked) = unpack_bytes(&layer).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(unpacked.diff_id, sha256(&plain), "{name}");
        // Both readers see the same entries.
        let mut walker = ztoc::TarWalker::new();
        walker.push(&plain).unwrap();
        let (entries, _) = walker.finish().unwrap();
        assert_eq!(unpacked.entries, entries.len() as u64, "{name}");
        let tree = tree(target.path());
        for entry in entries.iter().filter(|entry| entry.kind == ztoc::EntryKind::Regular) {
            let path = place::clean(&entry.name).unwrap();
            if place::split(&path).1.starts_with(b".wh.") {
                continue;
            }
            // The last one of a name counts.
            let last = entries.iter().rfind(|other| place::clean(&other.name).unwrap() == path).unwrap();
            if last.offset == entry.offset {
                let data = &plain[entry.offset as usize..(entry.offset + entry.size) as usize];
                assert_eq!(tree[&path].content, data, "{name}: {}", path.escape_ascii());
            }
        }
    }
    for name in golden.refused.keys() {
        let result = unpack_bytes(&testdata::golden::layer(name));
        match result {
            Ok(_) => assert!(UNPACKED_THOUGH_REFUSED.contains(&name.as_str()), "{name} unpacked"),
            Err(error) => {
                assert!(!UNPACKED_THOUGH_REFUSED.contains(&name.as_str()), "{name}: {error}");
                assert!(
                    matches!(error, UnpackError::Read { .. } | UnpackError::Archive { .. }),
                    "{name}: {error}"
                );
            }
        }
    }
}
