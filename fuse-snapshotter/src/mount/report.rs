//! What was fetched of what.

use std::fmt;
use std::time::Duration;

use registry::Digest;
use serde::{Serialize, Serializer};

use crate::base::text::{Size, percent};
use crate::image::Served;

/// What one layer has cost.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Digest of the layer.
    pub digest: Digest,
    /// How it was served.
    #[serde(serialize_with = "serialize_mode")]
    pub mode: Served,
    /// Why it was not read lazily.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Size of the layer, compressed, in bytes.
    pub size: u64,
    /// Bytes of it that were fetched.
    pub fetched: u64,
    /// Ranged reads.
    pub requests: u64,
    /// Spans that it has.
    pub spans: usize,
    /// Spans that were fetched.
    pub fetched_spans: u64,
    /// Spans that arrived damaged, and files whose headers contradict the zTOC.
    pub errors: u64,
}

/// What an image has cost, from the mount until now.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The SOCI index that was used.
    pub index: Option<Digest>,
    /// The layers, bottom first.
    pub layers: Vec<LayerReport>,
    /// Seconds since the mount began.
    pub seconds: f64,
    /// Requests from the kernel.
    pub kernel_requests: u64,
    /// Reads among them.
    pub reads: u64,
    /// Reads that had to wait for the network.
    pub misses: u64,
}

/// What the kernel has asked of a mount.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelCounts {
    pub(super) requests: u64,
    pub(super) reads: u64,
    /// Reads that had to wait for the network.
    pub(super) misses: u64,
}

impl Report {
    pub(super) fn new(
        index: Option<Digest>,
        layers: Vec<LayerReport>,
        counts: KernelCounts,
        time: Duration,
    ) -> Self {
        Self {
            index,
            layers,
            seconds: time.as_secs_f64(),
            kernel_requests: counts.requests,
            reads: counts.reads,
            misses: counts.misses,
        }
    }

    /// Size of all layers, compressed, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Bytes of layers that were fetched.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.layers.iter().map(|layer| layer.fetched).sum()
    }

    /// Layers that are read lazily.
    #[must_use]
    pub fn lazy_layers(&self) -> usize {
        self.layers.iter().filter(|layer| layer.mode == Served::Lazy).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.index {
            Some(index) => writeln!(f, "SOCI index {index}")?,
            None => writeln!(f, "no SOCI index")?,
        }
        writeln!(
            f,
            "{:<20}{:<10}{:>10}{:>10}{:>7}{:>12}{:>10}",
            "LAYER", "MODE", "SIZE", "FETCHED", "%", "SPANS", "REQUESTS"
        )?;
        for layer in &self.layers {
            let mode = match layer.mode {
                Served::Lazy => "lazy",
                Served::Unpacked => "unpacked",
                Served::Copied => "local",
                Served::Deferred => "deferred",
            };
            write!(
                f,
                "{:<20}{mode:<10}{:>10}{:>10}{:>7.1}",
                format!("sha256:{:.12}", layer.digest.hex()),
                Size(layer.size),
                Size(layer.fetched),
                percent(layer.fetched, layer.size)
            )?;
            if layer.mode == Served::Lazy {
                write!(
                    f,
                    "{:>12}{:>10}",
                    format!("{}/{}", layer.fetched_spans, layer.spans),
                    layer.requests
                )?;
            }
            if let Some(reason) = &layer.reason {
                write!(f, "  ({reason})")?;
            }
            if layer.errors > 0 {
                write!(f, "  {} errors", layer.errors)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{:<30}{:>10}{:>10}{:>7.1}",
            "total",
            Size(self.size()),
            Size(self.fetched()),
            percent(self.fetched(), self.size())
        )?;
        write!(
            f,
            "{:.1} s mounted; {} requests from the kernel, {} of them reads, {} of these waited for the network",
            self.seconds, self.kernel_requests, self.reads, self.misses
        )
    }
}

/// The words of the JSON form.
fn serialize_mode<S: Serializer>(served: &Served, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match served {
        Served::Lazy => "lazy",
        Served::Unpacked => "unpacked",
        Served::Copied => "indexed",
        Served::Deferred => "deferred",
    })
}
