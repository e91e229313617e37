//! Compression, digests and the end of the stream.

use std::io::{Read, Write as _};

use super::*;

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn archive() -> Vec<u8> {
    let data: Vec<u8> =
        (0..3_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).collect();
    Tar::default().file("a", &data).file("b", &data[..1000]).end()
}

#[test]
fn formats_are_told_apart() {
    assert_eq!(LayerFormat::sniff(&gzip(b"")), LayerFormat::Gzip);
    assert_eq!(LayerFormat::sniff(&zstd::encode_all(&b""[..], 1).unwrap()), LayerFormat::Zstd);
    assert_eq!(LayerFormat::sniff(&[0x5a, 0x2a, 0x4d, 0x18]), LayerFormat::Zstd);
    assert_eq!(LayerFormat::sniff(&archive()), LayerFormat::Tar);
    assert_eq!(LayerFormat::sniff(b""), LayerFormat::Tar);
    for (media_type, format) in [
        ("application/vnd.oci.image.layer.v1.tar", Some(LayerFormat::Tar)),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+zstd; x=y", Some(LayerFormat::Zstd)),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar", Some(LayerFormat::Tar)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(LayerFormat::Zstd)),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(LayerFormat::Gzip)),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
        ("application/vnd.oci.image.config.v1+json", None),
        ("", None),
    ] {
        assert_eq!(LayerFormat::from_media_type(media_type), format, "{media_type}");
    }
}

/// Gives one byte, then an interruption, then three bytes, and so on.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 += 1;
        match self.1 % 3 {
            0 => Err(std::io::ErrorKind::Interrupted.into()),
            n => {
                let most = buffer.len().min(n * 2 - 1);
                self.0.read(&mut buffer[..most])
            }
        }
    }
}

#[test]
fn the_digest_covers_the_whole_stream() {
    let plain = [archive(), b"after the end mark".repeat(1000)].concat();
    let half = plain.len() / 2;
    let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&plain)].concat();
    for (what, layer) in [
        ("tar", plain.clone()),
        ("gzip", gzip(&plain)),
        ("gzip members", [gzip(&plain[..half]), gzip(b""), gzip(&plain[half..])].concat()),
        ("gzip and zeros", [gzip(&plain), vec![0; 300_000]].concat()),
        ("zstd", zstd(&plain)),
        ("zstd frames", [zstd(&plain[..half]), zstd(&plain[half..])].concat()),
        ("skippable frame", skippable),
    ] {
        let (target, unpacked) = unpack_bytes(&layer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(unpacked.diff_id, sha256(&plain), "{what}");
        assert_eq!((unpacked.uncompressed_size, unpacked.entries), (plain.len() as u64, 2), "{what}");
        assert_eq!(std::fs::read(target.path().join("a")).unwrap(), plain[512..512 + 12_000_000], "{what}");
    }
    let small = [Tar::default().file("f", b"data").end(), vec![1; 100]].concat();
    for layer in [small.clone(), gzip(&small), [gzip(&small), vec![0; 9]].concat(), zstd(&small)] {
        let target = tempfile::tempdir().unwrap();
        let unpacked = unpack(Trickle(&layer, 0), None, target.path(), &Options::default()).unwrap();
        assert_eq!(unpacked.diff_id, sha256(&small));
    }
}

#[test]
fn broken_streams_are_errors() {
    let plain = archive();
    let gz = gzip(&plain);
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    let mut wrong_crc = gz.clone();
    let crc = wrong_crc.len() - 8;
    wrong_crc[crc] ^= 1;
    for (what, layer, expected) in [
        ("gzip, then junk", [&gz[..], b"junk"].concat(), "followed by something else"),
        ("gzip, zeros, then junk", [&gz[..], &[0; 200_000], b"x"].concat(), "followed by something else"),
        ("gzip, then half a header", [&gz[..], &gz[..5]].concat(), "reading the layer"),
        ("gzip cut short", gz[..gz.len() - 1].to_vec(), "reading the layer"),
        ("gzip cut in half", gz[..gz.len() / 2].to_vec(), "reading the layer"),
        ("wrong checksum", wrong_crc, "reading the layer"),
        ("zstd cut short", zst[..zst.len() - 1].to_vec(), "reading the layer"),
        ("zstd, then junk", [&zst[..], b"junk"].concat(), "reading the layer"),
        ("tar cut within a file", plain[..5000].to_vec(), "ends within a file"),
        ("tar cut within a header", plain[..300].to_vec(), "ends within a header"),
        ("not tar", vec![0xaa; 5000], "checksum"),
    ] {
        let error = unpack_bytes(&layer).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let target = tempfile::tempdir().unwrap();
    let error = unpack(&plain[..], LayerFormat::Gzip, target.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Read { .. }), "{error}");
    for (layer, said, words) in [
        (&plain, LayerFormat::Gzip, "it says gzip, but the bytes are uncompressed"),
        (&plain, LayerFormat::Zstd, "it says zstd, but the bytes are uncompressed"),
        (&gz, LayerFormat::Tar, "it says uncompressed, but the bytes are gzip"),
        (&gz, LayerFormat::Zstd, "it says zstd, but the bytes are gzip"),
        (&zst, LayerFormat::Tar, "it says uncompressed, but the bytes are zstd"),
        (&zst, LayerFormat::Gzip, "it says gzip, but the bytes are zstd"),
    ] {
        let error = unpack(&layer[..], said, target.path(), &Options::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = unpack(&plain[..], None, Path::new("/nonexistent"), &Options::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Target { .. }), "{error}");
}

#[test]
fn archives_without_an_end_mark() {
    let archive = Tar::default().file("f", b"data").0;
    // Nothing at all, no mark, half a mark, and no padding.
    for layer in [&b""[..], &archive, &[&archive[..], &[0; 512]].concat(), &archive[..516]] {
        let (target, unpacked) = unpack_bytes(layer).unwrap();
        assert_eq!(target.path().join("f").exists(), !layer.is_empty());
        assert_eq!(unpacked.diff_id, sha256(layer));
    }
}
