//! Layers read back by other code: the `tar` crate, flate2, GNU tar.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::*;
use crate::digest::sha256;
use crate::registry::TestRegistry;

fn unpack(layer: &Layer) -> Vec<u8> {
    let mut tar = Vec::new();
    match layer.compression {
        Compression::None => tar.extend_from_slice(&layer.bytes()),
        Compression::Zstd { .. } => tar = zstd::decode_all(&layer.bytes()[..]).unwrap(),
        _ => drop(MultiGzDecoder::new(&layer.bytes()[..]).read_to_end(&mut tar).unwrap()),
    }
    assert_eq!((sha256(&tar), tar.len() as u64), (layer.diff_id.clone(), layer.uncompressed_size));
    assert_eq!((sha256(&layer.bytes()), layer.bytes().len() as u64), (layer.digest.clone(), layer.size));
    tar
}

#[derive(Debug, PartialEq)]
struct Seen {
    kind: u8,
    size: u64,
    mode: u32,
    uid: u64,
    mtime: u64,
    link: Option<Vec<u8>>,
    data: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
}

/// What the `tar` crate sees, by name.
fn read(tar: &[u8]) -> BTreeMap<Vec<u8>, Seen> {
    let mut archive = ::tar::Archive::new(tar);
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut pax = Vec::new();
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records {
                let record = record.unwrap();
                pax.push((record.key().unwrap().to_owned(), record.value_bytes().to_vec()));
            }
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let header = entry.header();
        let seen = Seen {
            kind: header.entry_type().as_byte(),
            size: entry.size(),
            mode: header.mode().unwrap(),
            uid: header.uid().unwrap(),
            mtime: header.mtime().unwrap(),
            link: entry.link_name_bytes().map(|l| l.to_vec()),
            data,
            pax,
        };
        all.insert(entry.path_bytes().to_vec(), seen);
    }
    all
}

#[test]
fn every_kind_of_entry() {
    let mut builder = LayerBuilder::new(Compression::None);
    builder
        .add(Entry::dir("d").mode(0o1777).owner(10, 20))
        .add(
            Entry::file("d/f", "hello")
                .mode(0o4755)
                .mtime(1_600_000_000, 120_000_000)
                .xattr("user.k", b"v\0w"),
        )
        .add(Entry::hard_link("d/h", "d/f"))
        .add(Entry::symlink("d/s", "f"))
        .add(Entry::char_device("d/c", 1, 3))
        .add(Entry::block_device("d/b", 8, 300))
        .add(Entry::fifo("d/p"))
        .add(Entry::whiteout("d/gone"))
        .add(Entry::opaque("d/o"))
        .add(Entry::dir("sized").header_size(4096));
    let layer = builder.finish();
    // A directory's size has no data behind it, whatever it says; the tar crate would skip it.
    let tar = unpack(&layer);
    let seen = read(&tar[..tar.len() - 1536]);
    assert_eq!(tar[tar.len() - 1536..][124..136], *b"00000010000\0");
    let f = &seen[&b"d/f"[..]];
    assert_eq!((f.kind, f.mode, f.mtime, f.data.as_slice()), (b'0', 0o4755, 1_600_000_000, &b"hello"[..]));
    let pax = [
        ("mtime".to_owned(), b"1600000000.12".to_vec()),
        ("SCHILY.xattr.user.k".to_owned(), b"v\0w".to_vec()),
    ];
    assert_eq!(f.pax, pax);
    assert_eq!((seen[&b"d/"[..]].kind, seen[&b"d/"[..]].mode, seen[&b"d/"[..]].uid), (b'5', 0o1777, 10));
    let kinds: Vec<u8> =
        [&b"d/h"[..], b"d/s", b"d/c", b"d/b", b"d/p"].iter().map(|p| seen[*p].kind).collect();
    assert_eq!(kinds, b"12346");
    assert_eq!(seen[&b"d/h"[..]].link.as_deref(), Some(&b"d/f"[..]));
    assert!(seen.contains_key(&b"d/.wh.gone"[..]) && seen.contains_key(&b"d/o/.wh..wh..opq"[..]));
}

#[test]
fn long_names_in_every_format() {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(60));
    let longer = format!("{}/{}", "x/".repeat(100), "y".repeat(120));
    for (format, names) in [
        (Format::Ustar, vec![&long]),
        (Format::Gnu, vec![&long, &longer]),
        (Format::Pax, vec![&long, &longer]),
    ] {
        let mut builder = LayerBuilder::new(Compression::None);
        for name in &names {
            builder.add(Entry::file(name, "1").format(format));
        }
        if format != Format::Ustar {
            builder.add(Entry::symlink("link", &longer).format(format));
        }
        let seen = read(&unpack(&builder.finish()));
        names.iter().for_each(|n| assert_eq!(seen[n.as_bytes()].data, b"1", "{format:?}"));
        if format != Format::Ustar {
            assert_eq!(seen[&b"link"[..]].link.as_deref(), Some(longer.as_bytes()), "{format:?}");
        }
    }
    // 100 bytes fit without a NUL, 99 and 101 are on either side.
    for n in 99..=101 {
        let mut builder = LayerBuilder::new(Compression::None);
        let layer = builder.add(Entry::file("n".repeat(n), "").format(Format::Gnu)).position();
        assert_eq!(layer, if n == 101 { 1536 } else { 512 });
    }
}

#[test]
fn big_numbers_and_odd_names() {
    let layer: Layer = [
        Entry::file("gnu", "").owner(1 << 33, 5).format(Format::Gnu),
        Entry::file("pax", "").owner(1 << 33, 5).mtime(-2, 500_000_000),
        Entry::file(b"raw\xff", ""),
        Entry::file("ümlaut", ""),
        Entry::file("v7", "x").format(Format::V7),
    ]
    .into_iter()
    .collect();
    let seen = read(&unpack(&layer));
    assert_eq!(seen[&b"gnu"[..]].uid, 1 << 33);
    let pax = &seen[&b"pax"[..]].pax;
    assert_eq!(pax[0], ("uid".to_owned(), b"8589934592".to_vec()));
    assert_eq!(pax[1], ("mtime".to_owned(), b"-1.5".to_vec()));
    assert!(seen.contains_key(&b"raw\xff"[..]));
    assert_eq!(seen["ümlaut".as_bytes()].pax[0].0, "path");
    assert_eq!(seen[&b"v7"[..]].data, b"x");
    let mut v7 = LayerBuilder::new(Compression::None);
    v7.add(Entry::file("v7", "").format(Format::V7));
    assert!(unpack(&v7.finish())[156..512].iter().all(|b| *b == 0));
}

#[test]
fn pax_record_lengths_count_themselves() {
    for n in [1, 3, 4, 5, 90, 91, 92, 93, 94, 95, 986, 987, 988, 989, 990] {
        let record = super::tar::record(b"k", &vec![b'v'; n]);
        let stated: usize =
            record.split(|b| *b == b' ').next().map(|d| String::from_utf8_lossy(d).parse().unwrap()).unwrap();
        assert_eq!(stated, record.len());
    }
}

/// GNU tar knows all four sparse formats, which the `tar` crate does not.
#[test]
fn sparse_files_unpack_with_gnu_tar() {
    let pieces: Vec<(u64, Vec<u8>)> =
        (0..30).map(|i| (i * 10_000, vec![b'a' + i as u8; if i < 29 { 1024 } else { 700 }])).collect();
    let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(at, data)| (*at, data.as_slice())).collect();
    for format in [SparseFormat::Gnu, SparseFormat::Pax00, SparseFormat::Pax01, SparseFormat::Pax10] {
        let entry = Entry::sparse("dir/holes", 1_000_000, &pieces, format);
        let expected = entry.content().unwrap().to_vec();
        assert_eq!(expected.len(), 1_000_000);
        let mut builder = LayerBuilder::new(Compression::None);
        let layer = builder.add(entry).add(Entry::file("after", "ok"));
        assert!(layer.position() < 60_000);
        let tar = unpack(&builder.finish());
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("tar")
            .args(["-x", "--no-same-owner", "-C"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&tar).unwrap();
        assert!(child.wait().unwrap().success(), "{format:?}");
        assert_eq!(sha256(&fs::read(dir.path().join("dir/holes")).unwrap()), sha256(&expected), "{format:?}");
        assert_eq!(fs::read(dir.path().join("after")).unwrap(), b"ok");
    }
}

#[test]
fn compression_and_ends() {
    let build = |compression, end| {
        let mut builder = LayerBuilder::new(compression).end(end);
        builder.add(Entry::made("text", Texture::Text, 1, 300_000));
        builder.add(Entry::made("random", Texture::Random, 2, 50_000));
        builder.finish()
    };
    let plain = build(Compression::None, End::Marker);
    for compression in [
        Compression::GZIP,
        Compression::Gzip(1),
        Compression::STORED,
        Compression::GzipMembers { level: 6, member: 10_000 },
    ] {
        let layer = build(compression, End::Marker);
        unpack(&layer);
        assert_eq!(layer.diff_id, plain.diff_id);
        assert_eq!(layer.digest, build(compression, End::Marker).digest, "{compression:?} is deterministic");
        let members = layer.bytes().windows(4).filter(|w| *w == [0x1f, 0x8b, 8, 0]).count();
        let expected = if matches!(compression, Compression::GzipMembers { .. }) { 36 } else { 1 };
        assert_eq!(members, expected, "{compression:?}");
    }
    assert!(build(Compression::STORED, End::Marker).size > plain.size);
    assert_eq!(build(Compression::None, End::None).size + 1024, plain.size);
    assert_eq!(build(Compression::None, End::Padded(10240)).size % 10240, 0);
    // This digest is written down so that a change of the generator is noticed: it would change every fixture.
    assert_eq!(plain.digest, "sha256:df664dcb5c34318c30572cf2c124c083aa36b851db72cfcb49e9a4068e5a6f57");
}

#[test]
fn zstd_frames_and_what_is_beside_them() {
    let build = |compression| {
        let mut builder = LayerBuilder::new(compression);
        builder.add(Entry::made("text", Texture::Text, 1, 300_000));
        builder.add(Entry::file("small", "small"));
        builder.add(Entry::made("random", Texture::Random, 2, 50_000));
        builder.finish()
    };
    let plain = build(Compression::None);
    for (compression, expected, skippable) in [
        (Compression::ZSTD_FRAME, 1, 0),
        (Compression::ZSTD, 6, 0),
        (Compression::ZSTD_SEEKABLE, 6, 1),
        (Compression::ZSTD_CHUNKED, 7, 2),
    ] {
        let layer = build(compression);
        unpack(&layer);
        assert_eq!(layer.diff_id, plain.diff_id);
        assert_eq!(layer.digest, build(compression).digest, "{compression:?} is deterministic");
        let bytes = layer.bytes();
        let (mut at, mut frames, mut skipped) = (0, 0, 0);
        while at < bytes.len() {
            *(if bytes[at] == 0x28 { &mut frames } else { &mut skipped }) += 1;
            at += zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).unwrap();
        }
        assert_eq!((frames, skipped), (expected, skippable), "{compression:?}");
    }
    let seekable = build(Compression::ZSTD_SEEKABLE).bytes();
    assert!(seekable.ends_with(&[6, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]));
    assert!(build(Compression::ZSTD_CHUNKED).bytes().ends_with(b"GNUlInUx"));
}

#[test]
fn textures_compress_as_they_say() {
    let ratio = |texture| {
        let mut builder = LayerBuilder::new(Compression::GZIP);
        builder.add(Entry::made("f", texture, 3, 1 << 20));
        let layer = builder.finish();
        layer.size as f64 / layer.uncompressed_size as f64
    };
    assert!((0.2..0.45).contains(&ratio(Texture::Text)), "{}", ratio(Texture::Text));
    assert!((0.35..0.65).contains(&ratio(Texture::Binary)), "{}", ratio(Texture::Binary));
    assert!(ratio(Texture::Random) > 0.99);
    let content = |len| Content::Made { texture: Texture::Text, seed: 9, len }.to_vec();
    assert_eq!(content(100_000)[..70_000], content(70_000));
}

#[test]
fn small_files_and_big_layer() {
    let layer = fixtures::many_small_files(250);
    let seen = read(&unpack(&layer));
    assert_eq!(seen.len(), 250 + 1 + 1 + 3);
    assert!(seen.contains_key(&b"srv/d000/d002/f000249.txt"[..]));
    let dir = tempfile::tempdir().unwrap();
    let to_file = fixtures::many_small_files_to(dir.path().join("l"), 250);
    assert_eq!((to_file.digest, to_file.entries.len()), (layer.digest, 0));

    let path = dir.path().join("big");
    let big = fixtures::one_big_layer(&path, 8 << 20);
    assert!(((8 << 20) - 8192..=8 << 20).contains(&big.uncompressed_size), "{}", big.uncompressed_size);
    let share = big.size as f64 / big.uncompressed_size as f64;
    assert!((0.25..0.7).contains(&share), "{share}");
    let seen = read(&unpack(&big));
    assert!(seen.len() > 8 && seen.values().any(|s| s.size >= 2_000_000), "{}", seen.len());
    assert_eq!(big.digest, fixtures::one_big_layer(dir.path().join("again"), 8 << 20).digest);
}

#[test]
fn files_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/f"), "data").unwrap();
    fs::hard_link(dir.path().join("sub/f"), dir.path().join("sub/g")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    std::os::unix::fs::symlink("/sub", dir.path().join("loop")).unwrap();
    let seen = read(&unpack(&host::from_dir(dir.path())));
    let names: Vec<_> = seen.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect();
    assert_eq!(names, ["dangling", "loop", "sub/", "sub/f", "sub/g"]);
    assert_eq!((seen[&b"sub/f"[..]].data.as_slice(), seen[&b"sub/g"[..]].kind), (&b"data"[..], b'1'));

    let mut files = host::HostFiles::new();
    files.binary("/bin/sh");
    let seen = read(&unpack(&files.layer(Compression::Gzip(1))));
    let names: Vec<_> = seen.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect();
    assert!(names.iter().any(|n| n.contains("libc.so") || n.contains("ld-musl")), "{names:?}");
    assert!(seen.values().filter(|s| s.kind == b'0').all(|s| s.size > 0));
}

fn sample(platform: &str, media_types: MediaTypes) -> Image {
    let lower: Layer = [Entry::file("a", "1")].into_iter().collect();
    let mut upper = LayerBuilder::new(Compression::None);
    upper.add(Entry::file("b", platform));
    let builder = ImageBuilder::new().platform(platform).media_types(media_types);
    builder.layer(lower).layer(upper.finish()).annotation("k", "v").cmd(&["/a"]).build()
}

#[test]
fn image_is_consistent() {
    let image = sample("linux/arm/v7", MediaTypes::Docker);
    let manifest: Value = serde_json::from_slice(&image.manifest()).unwrap();
    let config: Value = serde_json::from_slice(&image.config()).unwrap();
    assert_eq!(image.digest(), sha256(&image.manifest()));
    assert_eq!(manifest["config"]["digest"], sha256(&image.config()));
    assert_eq!(config["variant"], "v7");
    assert_eq!(config["rootfs"]["diff_ids"][1], image.layers()[1].diff_id.as_str());
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(manifest["layers"][1]["size"], image.layers()[1].size);
    assert_eq!(image.digest(), sample("linux/arm/v7", MediaTypes::Docker).digest());
}

#[test]
fn index_by_layout_archive_and_registry() {
    let (amd, arm) = (sample("linux/amd64", MediaTypes::Oci), sample("linux/arm64", MediaTypes::Oci));
    let inner = IndexBuilder::new().image(&arm).build();
    let index =
        IndexBuilder::new().image_annotated(&amd, &[("a", "b")]).index(&inner).annotation("x", "y").build();
    let registry = TestRegistry::builder().start_blocking();
    assert_eq!(index.put_into(&registry, "direct", "v1"), index.digest());

    let dir = tempfile::tempdir().unwrap();
    index.write_layout(dir.path(), "v1");
    let other = TestRegistry::builder().start_blocking();
    assert_eq!(other.put_layout("repo", "v1", dir.path()), index.digest());
    for registry in [(&registry, "direct"), (&other, "repo")] {
        let (registry, repo) = registry;
        assert_eq!(registry.manifest(repo, "v1").unwrap().1, index.manifest());
        assert_eq!(registry.manifest(repo, arm.digest()).unwrap().1, arm.manifest());
        for layer in amd.layers().iter().chain(arm.layers()) {
            assert_eq!(registry.blob(&layer.digest).unwrap(), layer.bytes());
        }
        assert_eq!(registry.tags(repo), ["v1"]);
    }

    let archive = dir.path().join("archive.tar");
    index.write_archive(&archive, "v1");
    let seen = read(&fs::read(&archive).unwrap());
    assert_eq!(seen[&b"index.json"[..]].data, fs::read(dir.path().join("index.json")).unwrap());
    for blob in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let name = format!("blobs/sha256/{}", blob.unwrap().file_name().to_string_lossy());
        assert_eq!(seen[name.as_bytes()].data, fs::read(dir.path().join(&name)).unwrap());
    }
}

#[test]
fn golden_layouts_load() {
    let registry = TestRegistry::builder().start_blocking();
    for name in ["all-layers", "docker", "multi-platform"] {
        let digest = registry.put_layout(name, "latest", crate::golden::image_dir(name));
        assert!(registry.manifest(name, &digest).is_some());
    }
}
