//! The images that are started, in the registry with their SOCI indexes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use benches::process::sibling;
use bytes::Bytes;
use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::workloads::Workloads;
use ztoc::Ztoc;

use crate::site::Site;

/// Name of the image that is made without downloads.
pub(crate) const SMOKE: &str = "smoke";
/// The annotation of a zTOC's descriptor that names the layer.
const LAYER: &str = "com.amazon.soci.image-layer-digest";

/// An image to start.
pub(crate) struct Image {
    pub(crate) name: String,
    /// Text of the line that says that it is ready.
    pub(crate) ready: String,
    pub(crate) reference: String,
    /// An image of as many layers, which are all empty.
    pub(crate) hollow: String,
    /// Bottom first.
    pub(crate) layers: Vec<Layer>,
    /// Of the index manifest and its configuration, in bytes.
    pub(crate) index_size: u64,
    /// Everything that a start may fetch.
    blobs: Vec<String>,
}

/// A layer.
pub(crate) struct Layer {
    pub(crate) digest: String,
    /// Compressed, in bytes.
    pub(crate) size: u64,
    pub(crate) uncompressed: u64,
    /// Absent for a layer that the index leaves out.
    pub(crate) ztoc: Option<Ztoc>,
}

impl Image {
    /// Size of all layers, compressed, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Digests of everything that a start may fetch.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &str> {
        self.blobs.iter().map(String::as_str)
    }

    /// The repository in the registry.
    pub(crate) fn repository(&self) -> &str {
        &self.name
    }

    /// The largest layer.
    pub(crate) fn largest(&self) -> Option<&Layer> {
        self.layers.iter().max_by_key(|layer| layer.size)
    }

    /// Copies an image into the registry, indexes it there, and puts an image of empty layers beside it.
    fn put(
        site: &Site,
        directory: &Path,
        (name, ready): (&str, &str),
        (image, layout): (&testdata::image::Image, &Path),
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let reference = site.copy(layout, name, name)?;
        let root = directory.join("indexes").join(name);
        let output = Command::new(sibling("soci")?)
            .arg("--root")
            .arg(&root)
            .args(["--content-store", "soci", "create", "--push", "--plain-http"])
            .args(options)
            .arg(format!("docker://{reference}"))
            .env("HOME", directory)
            .output()?;
        ensure!(
            output.status.success(),
            "cannot index {reference}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let hollow = directory.join("hollow").join(name);
        let empty = LayerBuilder::new(Compression::GZIP).finish();
        let layers = image.layers().iter().fold(ImageBuilder::new(), |built, _| built.layer(empty.clone()));
        layers.cmd(&["/entry"]).build().write_layout(&hollow, "1");
        let hollow = site.copy(&hollow, "1", &format!("hollow/{name}"))?;
        let mut all = Self {
            name: name.into(),
            ready: ready.into(),
            reference,
            hollow,
            layers: Vec::new(),
            index_size: 0,
            blobs: Vec::new(),
        };
        all.read_index(image, &root)?;
        Ok(all)
    }

    /// Reads what `soci create` has left in its store: one index with its zTOCs.
    fn read_index(&mut self, image: &testdata::image::Image, root: &Path) -> anyhow::Result<()> {
        let store = root.join("content/blobs/sha256");
        let read = |digest: &str| {
            let path = store.join(digest.trim_start_matches("sha256:"));
            std::fs::read(&path).with_context(|| format!("no {}", path.display()))
        };
        let mut index = None;
        for entry in std::fs::read_dir(&store)? {
            let entry = entry?;
            // zTOCs are larger, and no JSON.
            if entry.metadata()?.len() > 1 << 20 {
                continue;
            }
            let bytes = std::fs::read(entry.path())?;
            let value: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
            if let Some(value) = value.filter(|value| value.get("subject").is_some()) {
                index = Some((value, bytes.len() as u64));
                self.blobs.push(format!("sha256:{}", entry.file_name().to_string_lossy()));
            }
        }
        let (index, size) = index.context("soci create has left no index")?;
        self.index_size = size + index["config"]["size"].as_u64().unwrap_or(0);
        let ztocs = index["layers"].as_array().cloned().unwrap_or_default();
        for layer in image.layers() {
            let of_layer = ztocs.iter().find(|ztoc| ztoc["annotations"][LAYER] == *layer.digest);
            let digest = of_layer.and_then(|ztoc| ztoc["digest"].as_str());
            let ztoc =
                digest.map(|digest| anyhow::Ok(Ztoc::parse(Bytes::from(read(digest)?))?)).transpose()?;
            self.blobs.extend(digest.map(str::to_owned));
            self.blobs.push(layer.digest.clone());
            self.layers.push(Layer {
                digest: layer.digest.clone(),
                size: layer.size,
                uncompressed: layer.uncompressed_size,
                ztoc,
            });
        }
        self.blobs.push(image.digest().to_owned());
        self.blobs.push(testdata::digest::sha256(&image.config()));
        Ok(())
    }
}

/// Makes (or finds) images, puts them into the registry and indexes them.
pub(crate) fn prepare(
    site: &Site,
    directory: &Path,
    names: &[String],
    progress: &dyn Fn(&str),
) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    for name in names {
        crate::interrupt::check()?;
        if name == SMOKE {
            images.push(smoke(site, directory)?);
            continue;
        }
        let making =
            |what: &str| progress(&format!("making {what} of Debian packages; kept in target/workloads"));
        let workloads = Workloads::startup(&[name], &making)
            .context("the images cannot be made here: see the message above")?;
        let workload = workloads.named(name);
        progress(&format!("{name}: into the registry, and soci create --push"));
        let what = (workload.image(), &*workloads.layout());
        images.push(Image::put(site, directory, (name, workload.ready()), what, &[])?);
    }
    Ok(images)
}

/// A shell of this machine, and a layer that it does not read.
fn smoke(site: &Site, directory: &Path) -> anyhow::Result<Image> {
    const READY: &str = "smoke is up";
    let mut files = HostFiles::new();
    files.binary("/bin/sh").binary("/bin/sleep");
    let mut ballast = LayerBuilder::new(Compression::GZIP);
    ballast.add(Entry::dir("srv"));
    ballast.add(Entry::made("srv/ballast", Texture::Random, 1, 12 << 20));
    let image = ImageBuilder::new()
        .layer(files.layer(Compression::GZIP))
        .layer(ballast.finish())
        .config("Env", vec!["PATH=/bin:/usr/bin"])
        .cmd(&["/bin/sh", "-c", &format!("echo {READY}; exec sleep 1000")])
        .build();
    let layout = directory.join("smoke-layout");
    image.write_layout(&layout, SMOKE);
    Image::put(site, directory, (SMOKE, READY), (&image, &layout), &["--min-layer-size", "0"])
}
