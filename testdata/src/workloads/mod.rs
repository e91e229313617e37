//! Images of real programs, made of Debian packages: Python, Node.js, PostgreSQL, Redis and nginx.
//!
//! Each has eleven layers, the lowest three shared by all: whiteouts of files and directories, opaque directories, files
//! that replace directories and the other way round, hard links within a layer and to files below, extended attributes
//! and capabilities, setuid programs, devices, pipes, foreign owners, odd and long names and times; see `recipe.rs`. Each
//! has a program at `/entry` that prints a line when it is ready.
//!
//! The start-up benchmark has images of its own, as people make them: a base and one layer with everything else; see
//! `startup.rs`.
//!
//! The layers are made as container builders make them: a shell works in an overlay, and what is in its upper directory
//! afterwards is the layer. They are built once and kept in `target/workloads`, under the digest of the recipe, where later
//! test runs find them; delete that directory to have them built again. The expected trees do not come from that overlay
//! but from umoci.

mod build;
mod pack;
mod recipe;
mod startup;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::docker_registry::DockerRegistry;
use crate::expected::Tree;
use crate::image::{BlobData, Compression, Image, ImageBuilder, Layer};
use crate::need::{Need, available};
use crate::registry::TestRegistry;

/// Everything that building and unpacking use.
const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("debootstrap", "debootstrap"),
    Need::Program("unshare", "util-linux"),
    Need::Program("umoci", "umoci"),
    Need::Program("skopeo", "skopeo"),
];

/// The images.
#[derive(Debug, Clone)]
pub struct Workloads {
    directory: PathBuf,
    all: Vec<Workload>,
}

/// One image.
#[derive(Debug, Clone)]
pub struct Workload {
    name: String,
    ready: String,
    image: Image,
    layout: PathBuf,
}

impl Workloads {
    /// Builds the images, or finds those that an earlier run built; `None`, with a word about it, where something for it
    /// is missing. Test processes wait for each other.
    ///
    /// # Panics
    /// If they cannot be built: Debian's packages are downloaded.
    #[must_use]
    pub fn get() -> Option<Self> {
        available(NEEDS).then(build::get)
    }

    /// The images of the start-up benchmark: those of `names`, of [`startup_names`], built one by one when they are first
    /// asked for; `None` as for [`get`](Self::get). `progress` is told what takes long.
    ///
    /// # Panics
    /// As [`get`](Self::get), and if there is no image of a name.
    #[must_use]
    pub fn startup(names: &[&str], progress: &dyn Fn(&str)) -> Option<Self> {
        available(NEEDS).then(|| startup::get(names, progress))
    }

    /// All images: `python`, `nodejs`, `postgresql`, `redis`, `nginx`.
    #[must_use]
    pub fn all(&self) -> &[Workload] {
        &self.all
    }

    /// The image of a name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn named(&self, name: &str) -> &Workload {
        self.all.iter().find(|workload| workload.name == name).unwrap()
    }

    /// The OCI layout directory with all images, each under its name.
    #[must_use]
    pub fn layout(&self) -> PathBuf {
        self.directory.join("layout")
    }

    /// Copies all images into a registry; returns name and reference of each.
    ///
    /// # Panics
    /// If skopeo fails.
    pub fn push(&self, registry: &DockerRegistry) -> Vec<(String, String)> {
        self.all.iter().map(|workload| (workload.name.clone(), workload.push(registry))).collect()
    }
}

/// The images that [`Workloads::startup`] can make.
#[must_use]
pub fn startup_names() -> Vec<&'static str> {
    startup::RECIPES.iter().map(|recipe| recipe.name).collect()
}

impl Workload {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image; its layers are in files, without a record of their entries.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The program that the image's configuration names.
    #[must_use]
    pub fn command(&self) -> [&str; 1] {
        ["/entry"]
    }

    /// What its output contains once the program is ready.
    #[must_use]
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// Paths that a layer has and a layer above takes away.
    #[must_use]
    pub fn gone(&self) -> &'static [&'static str] {
        recipe::GONE
    }

    /// Copies it into a registry, digests kept; returns its reference.
    ///
    /// # Panics
    /// If skopeo fails.
    pub fn push(&self, registry: &DockerRegistry) -> String {
        registry.copy(&format!("oci:{}:{}", self.layout.display(), self.name), &self.repository())
    }

    /// Puts it into a registry of this process, which serves the layers from their files; returns its reference.
    pub fn put_into(&self, registry: &TestRegistry) -> String {
        let repository = self.repository();
        let (path, tag) = repository.split_once(':').unwrap();
        self.image.put_into(registry, path, tag);
        format!("{}/{repository}", registry.host())
    }

    fn repository(&self) -> String {
        format!("workloads/{}:1", self.name)
    }

    /// The whole tree, as umoci unpacks it.
    ///
    /// # Panics
    /// If umoci fails.
    #[must_use]
    pub fn expected(&self) -> Tree {
        let directory = build::scratch(&format!("unpacked-{}", self.name));
        let bundle = directory.path().join("bundle");
        let image = format!("{}:{}", self.layout.display(), self.name);
        let output = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut tree = crate::walk::walk(&bundle.join("rootfs"));
        // umoci leaves out attributes without a value, which containerd does not.
        let node = tree.0.get_mut(&b"srv/attributes/xattr"[..]).unwrap();
        node.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        tree
    }
}

/// What the cache keeps of an image beside its layout.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    ready: String,
    layers: Vec<LayerRecord>,
}

/// What the cache keeps of a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LayerRecord {
    digest: String,
    size: u64,
    diff_id: String,
    uncompressed_size: u64,
}

impl LayerRecord {
    fn of(layer: &Layer) -> Self {
        Self {
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: layer.diff_id.clone(),
            uncompressed_size: layer.uncompressed_size,
        }
    }

    fn layer(&self, layout: &Path) -> Layer {
        Layer {
            data: BlobData::File(blob(layout, &self.digest)),
            digest: self.digest.clone(),
            size: self.size,
            diff_id: self.diff_id.clone(),
            uncompressed_size: self.uncompressed_size,
            compression: Compression::GZIP,
            entries: std::sync::Arc::default(),
        }
    }
}

impl Record {
    fn workload(&self, layout: &Path) -> Workload {
        let image =
            self.layers.iter().fold(ImageBuilder::new(), |image, layer| image.layer(layer.layer(layout)));
        let image = image.cmd(&["/entry"]).config("Env", vec![recipe_path()]);
        Workload {
            name: self.name.clone(),
            ready: self.ready.clone(),
            image: image.build(),
            layout: layout.to_owned(),
        }
    }
}

/// Where programs are, for the image's configuration.
fn recipe_path() -> &'static str {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

/// The file of a blob in a layout.
fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

#[cfg(test)]
mod tests;
