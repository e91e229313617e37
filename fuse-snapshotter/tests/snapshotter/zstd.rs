//! Images with Zstandard layers, in containers.

use testdata::image::Compression;
use testdata::registry::TestRegistry;

use crate::daemon::index;
use crate::fallback::{assert_runs, image_of};
use crate::node::{Node, Pull};

#[test]
fn zstd_layers_are_read_lazily() {
    for how in [Pull::Cri, Pull::Soci] {
        let Some(node) = Node::start() else { return };
        let registry = TestRegistry::builder().start_blocking();
        let image = image_of([Compression::ZSTD_CHUNKED, Compression::ZSTD, Compression::GZIP]);
        image.put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        index(&reference, &["--min-layer-size", "0"]);
        registry.clear_requests();
        node.pull(how, &reference);
        let layer = &image.layers()[1];
        let before =
            registry.requests().iter().filter(|request| request.path.contains(&layer.digest)).count();
        assert!(before <= 2, "{before} requests for a layer that nobody has read");
        assert_runs(&node, how, &reference, &image);
        let modes = node.daemon.modes(&reference);
        assert!(modes.len() == 3 && modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
    }
}

#[test]
fn a_single_frame_is_unpacked_first() {
    let Some(node) = Node::start() else { return };
    let registry = TestRegistry::builder().start_blocking();
    let image = image_of([Compression::ZSTD, Compression::ZSTD_FRAME, Compression::ZSTD_SEEKABLE]);
    image.put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0"]);
    node.pull(Pull::Cri, &reference);
    assert_runs(&node, Pull::Cri, &reference, &image);
    let words: Vec<_> = node.daemon.modes(&reference).into_iter().map(|(mode, _)| mode).collect();
    assert_eq!(words, ["lazy", "eager", "lazy"]);
}
