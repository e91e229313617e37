//! What was fetched of what.

use std::fmt;
use std::time::Duration;

use registry::Digest;
use serde::Serialize;

use super::overlay_stack::Stack;
use crate::base::text::{Size, percent};

/// How a layer was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Read from the registry as needed.
    Lazy,
    /// Unpacked before the mount.
    Unpacked,
    /// Fetched before the mount and served from the copy.
    Indexed,
}

/// What one layer has cost.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// Digest of the layer.
    pub digest: Digest,
    /// How it was served.
    pub mode: Mode,
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

impl Report {
    pub(super) fn new(
        index: Option<Digest>,
        layers: Vec<LayerReport>,
        stack: &Stack,
        time: Duration,
    ) -> Self {
        let sum = |count: fn(&crate::fronts::FuseStats) -> u64| stack.stats().map(count).sum();
        Self {
            index,
            layers,
            seconds: time.as_secs_f64(),
            kernel_requests: sum(crate::fronts::FuseStats::requests),
            reads: sum(crate::fronts::FuseStats::reads),
            misses: sum(crate::fronts::FuseStats::misses),
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
        self.layers.iter().filter(|layer| layer.mode == Mode::Lazy).count()
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
                Mode::Lazy => "lazy",
                Mode::Unpacked => "unpacked",
                Mode::Indexed => "local",
            };
            write!(
                f,
                "{:<20}{mode:<10}{:>10}{:>10}{:>7.1}",
                format!("sha256:{:.12}", layer.digest.hex()),
                Size(layer.size),
                Size(layer.fetched),
                percent(layer.fetched, layer.size)
            )?;
            if layer.mode == Mode::Lazy {
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
