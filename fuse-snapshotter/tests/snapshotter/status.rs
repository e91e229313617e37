//! What `status` says about images.

use testdata::docker_registry::DockerRegistry;
use testdata::image::{Compression, Entry, ImageBuilder, Layer, LayerBuilder, Texture};

use crate::daemon::{index, publish};
use crate::node::{Node, Pull};

fn layer(name: &str, size: u64) -> Layer {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made(name, Texture::Binary, size, size));
    layer.finish()
}

#[test]
fn status_names_the_index_of_an_image_whose_lazy_layers_another_one_brought() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::start() else { return };
    let image =
        |top: &str| ImageBuilder::new().layer(layer("base", 3_000_000)).layer(layer(top, 1000)).build();
    let first = publish(&registry, &image("first"), "first:v1");
    let second = publish(&registry, &image("second"), "second:v1");
    let indexes = [&first, &second].map(|reference| index(reference, &["--min-layer-size", "100000"]));
    node.pull(Pull::Soci, &first);
    node.pull(Pull::Soci, &second);
    let status = node.daemon.status();
    let of = |reference: &str| {
        let images = status["images"].as_array().unwrap();
        images
            .iter()
            .find(|image| image["image"] == reference)
            .unwrap_or_else(|| panic!("{status:#}"))
            .clone()
    };
    let own = of(&first);
    assert!(own["index"] == indexes[0].as_str() && own["index_of"].is_null(), "{own:#}");
    // Its own index has a zTOC for the shared layer as well, which was there already.
    let borrowed = of(&second);
    assert!(
        borrowed["index"] == indexes[0].as_str() && borrowed["index_of"] == first.as_str(),
        "{borrowed:#}"
    );
}
