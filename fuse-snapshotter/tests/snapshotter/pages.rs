//! The page cache under many images with one base.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::need::{Need, available};
use testdata::registry::TestRegistry;

use crate::container::Container;
use crate::daemon::index;
use crate::node::{Node, Pull};

const IMAGES: u64 = 20;
const SIZE: u64 = 8 << 20;

/// Bytes of a file that are in the page cache, without reading it.
fn resident(path: &PathBuf) -> u64 {
    let output = Command::new("fincore")
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// The base's files are read in one container only; then all the others have them in their page cache, because it is
/// the same one. A file that nobody has read is in none.
#[test]
fn files_of_a_shared_base_are_in_the_page_cache_once() {
    if !available(&[Need::Program("fincore", "util-linux-extra")]) {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let Some(node) = Node::with("[background_fetch]\ndisable = true\n") else { return };
    let mut shell = HostFiles::new();
    shell.binary("/bin/sleep").binary("/bin/echo").binary("/bin/sh");
    let shell = shell.layer(Compression::GZIP);
    let mut base = LayerBuilder::new(Compression::GZIP);
    base.add(Entry::made("read", Texture::Random, 1, SIZE)).add(Entry::made(
        "unread",
        Texture::Random,
        2,
        SIZE,
    ));
    let base = base.finish();
    let references: Vec<_> = (0..IMAGES)
        .map(|number| {
            let mut own = LayerBuilder::new(Compression::GZIP);
            own.add(Entry::file("own", number.to_string()));
            let image = ImageBuilder::new().layer(shell.clone()).layer(base.clone()).layer(own.finish());
            let image = image.cmd(&["/bin/sh", "-c", "echo ready; exec sleep 1000"]).build();
            image.put_into(&registry, &format!("base/{number}"), "1");
            let reference = format!("{}/base/{number}:1", registry.host());
            // Every fourth has a top layer that is unpacked.
            let least = if number.is_multiple_of(4) { "1000" } else { "0" };
            index(&reference, &["--min-layer-size", least]);
            node.pull(Pull::Cri, &reference);
            reference
        })
        .collect();
    let containers: Vec<_> = references
        .iter()
        .map(|reference| {
            let mut container = Container::run(&node, Pull::Cri.namespace(), reference);
            container.wait_for("ready", Duration::from_secs(60));
            container
        })
        .collect();
    let file = |container: &Container<'_>, name: &str| {
        PathBuf::from(format!("/proc/{}/root/{name}", container.pid()))
    };
    assert_eq!(resident(&file(&containers[0], "read")), 0);
    assert_eq!(std::fs::read(file(&containers[0], "read")).unwrap().len() as u64, SIZE);
    for (number, container) in containers.iter().enumerate() {
        assert_eq!(std::fs::read_to_string(file(container, "own")).unwrap(), number.to_string());
        // The kernel may take back some pages that nobody looks at; one that every container had of its own would show as
        // none at all.
        let there = resident(&file(container, "read"));
        assert!(there <= SIZE && there > SIZE * 9 / 10, "container {number}: {there} of {SIZE}");
        assert!(resident(&file(container, "unread")) < SIZE / 4, "container {number}");
    }
}
