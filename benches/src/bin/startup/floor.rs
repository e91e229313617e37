//! The least that a start can take, from measurements of the same run.
//!
//! * a start of the image when all of it is local and in memory, by overlayfs;
//! * the pull of an image with as many layers which are all empty, over the same link: what containerd does for a
//!   manifest and a configuration;
//! * the bytes that no lazy snapshotter can do without (index, zTOCs, layers without a zTOC, the spans that the start
//!   reads), at the link's nominal rate;
//! * three round trips.
//!
//! It is no proof: a snapshotter that unpacks less, or runs the program while it still pulls, could be faster.

use std::time::Instant;

use serde::Serialize;

use crate::container::Container;
use crate::images::Image;
use crate::link::Profile;
use crate::measure::Sample;
use crate::node::Node;
use crate::site::Site;
use crate::stats::percentile;
use crate::touched::{self, Touched};
use crate::variant::Variant;

/// What the floor of an image needs that does not depend on the link.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Local {
    /// Median start with everything local, in seconds.
    pub(crate) start: f64,
    pub(crate) touched: Touched,
    /// Index manifest and configuration, in bytes.
    pub(crate) index_bytes: u64,
    pub(crate) ztoc_bytes: u64,
    /// Layers that the index leaves out, in bytes.
    pub(crate) other_layer_bytes: u64,
}

/// The floor of an image behind a link.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Floor {
    /// Everything together, in seconds.
    pub(crate) total: f64,
    pub(crate) local_start: f64,
    /// Median pull of empty layers.
    pub(crate) empty_pull: f64,
    /// The bytes at the nominal rate, in seconds.
    pub(crate) transfer: f64,
    pub(crate) round_trips: f64,
    pub(crate) bytes: u64,
}

impl Local {
    /// Measures it; the link must have no delay.
    pub(crate) fn measure(site: &Site, image: &Image, runs: usize) -> anyhow::Result<Self> {
        let node = Node::start(&Variant::Overlayfs, site)?;
        node.pull(&image.reference)?;
        // The first start brings files, names and runc into memory.
        drop(Container::run(&node, &image.reference, &image.ready)?);
        let mut times = Vec::new();
        for _ in 0..runs {
            let began = Instant::now();
            let (container, ready) = Container::run(&node, &image.reference, &image.ready)?;
            times.push((ready - began).as_secs_f64());
            drop(container);
        }
        drop(node);
        let size = |bytes: &dyn Fn(&crate::images::Layer) -> u64| image.layers.iter().map(bytes).sum();
        Ok(Self {
            start: percentile(&times, 50),
            touched: touched::measure(site, image)?,
            index_bytes: image.index_size,
            ztoc_bytes: size(&|layer| layer.ztoc.as_ref().map_or(0, |ztoc| ztoc.bytes().len() as u64)),
            other_layer_bytes: size(&|layer| if layer.ztoc.is_some() { 0 } else { layer.size }),
        })
    }

    /// The floor behind a link on which pulls of empty layers took so long.
    pub(crate) fn floor(&self, profile: &Profile, empty_pulls: &[f64]) -> Floor {
        let bytes = self.index_bytes + self.ztoc_bytes + self.other_layer_bytes + self.touched.span_bytes;
        let empty_pull = percentile(empty_pulls, 50);
        let (transfer, round_trips) = (profile.seconds(bytes), 3.0 * profile.rtt.as_secs_f64());
        Floor {
            total: self.start + empty_pull + transfer + round_trips,
            local_start: self.start,
            empty_pull,
            transfer,
            round_trips,
            bytes,
        }
    }
}

impl Floor {
    /// How many times the floor a start took.
    pub(crate) fn multiple(&self, sample: &Sample) -> f64 {
        sample.total / self.total
    }
}

/// The pull of empty layers into a new containerd, in seconds, by the client that is quicker at it: `ctr`, or `soci pull`,
/// which finds no index. The programs are in memory, since reading them from a disk is no part of a floor.
pub(crate) fn empty_pull(site: &Site, image: &Image, profile: &Profile) -> anyhow::Result<f64> {
    let mut least = f64::INFINITY;
    // The first two bring them there.
    for (variant, profile) in [
        (Variant::Overlayfs, None),
        (Variant::Lazy, None),
        (Variant::Overlayfs, Some(profile)),
        (Variant::Lazy, Some(profile)),
    ] {
        let node = Node::start(&variant, site)?;
        site.link.set(profile)?;
        let began = Instant::now();
        node.pull(&image.hollow)?;
        if profile.is_some() {
            least = least.min(began.elapsed().as_secs_f64());
        }
        site.link.set(None)?;
    }
    Ok(least)
}
