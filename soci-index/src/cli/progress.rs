//! Builds, pushes and pulls as lines and progress bars.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

use crate::build::{LayerEvent, Progress};
use crate::destination::{Copied, CopyEvent, CopyProgress};
use crate::platform::Platform;
use crate::pull::{LayerOutcome, PullEvent, PullProgress};
use crate::push::{PushEvent, PushProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use registry::{Descriptor, Digest};

use crate::cli::output::Output;

/// A bar on the terminal for each layer that is being read; nothing where stderr is no terminal.
struct Bars {
    bars: Option<MultiProgress>,
    open: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    fn new(output: &Output) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        if let Some(bars) = &bars {
            output.attach(bars.clone());
        }
        Self { bars, open: Mutex::default() }
    }

    fn start(&self, layer: &Descriptor) {
        let (Some(bars), Ok(mut open)) = (&self.bars, self.open.lock()) else { return };
        let bar = bars.add(ProgressBar::new(layer.size));
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} {bar:30} {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12} {eta:>5}",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(layer.digest.as_str()[..19].to_owned());
        open.insert(layer.digest.clone(), bar);
    }

    /// Shows what happens to a layer that is being read.
    fn show(&self, layer: &Descriptor, event: &LayerEvent<'_>) {
        match event {
            LayerEvent::Started => self.start(layer),
            LayerEvent::Advanced(bytes) => self.with(layer, |bar| bar.inc(*bytes)),
            _ => self.with(layer, ProgressBar::finish_and_clear),
        }
    }

    fn with(&self, layer: &Descriptor, act: impl FnOnce(&ProgressBar)) {
        if let Ok(open) = self.open.lock()
            && let Some(bar) = open.get(&layer.digest)
        {
            act(bar);
        }
    }
}

/// Shows a build. Lines on stdout are the reference's, word for word.
pub(crate) struct BuildView {
    output: Arc<Output>,
    /// Whether lines about layers are wanted.
    lines: bool,
    bars: Bars,
}

impl BuildView {
    pub(crate) fn new(output: Arc<Output>, lines: bool) -> Self {
        let bars = Bars::new(&output);
        Self { output, lines, bars }
    }

    fn line(&self, text: impl std::fmt::Display) {
        if self.lines {
            // A closed stdout shows again when the result is printed.
            let _ = self.output.line(text);
        }
    }
}

impl Progress for BuildView {
    fn layer(&self, layer: &Descriptor, event: LayerEvent<'_>) {
        self.bars.show(layer, &event);
        let digest = &layer.digest;
        match event {
            LayerEvent::Started | LayerEvent::Advanced(_) | LayerEvent::Postponed => {}
            LayerEvent::Skipped(skipped) => self.line(skipped.message(layer)),
            LayerEvent::Reused(ztoc) => {
                self.line(format_args!("layer {digest} -> ztoc {ztoc} (already exists)"))
            }
            LayerEvent::Built(ztoc) => self.line(format_args!("layer {digest} -> ztoc {ztoc}")),
            LayerEvent::Failed(reason) => self.output.warn(format_args!(
                "layer {digest} cannot be indexed and is left out of the index: {reason}"
            )),
        }
    }

    fn platform_skipped(&self, platform: &Platform, reason: &str) {
        self.output.warn(format_args!("platform {platform} gets no index: {reason}"));
    }

    fn prefetch_built(&self, layer: &Descriptor, artifact: &Digest) {
        self.line(format_args!("Created prefetch artifact for layer {}: {artifact}", layer.digest));
    }

    fn prefetch_skipped(&self, platform: &Platform, file: &str, reason: &str) {
        let file = crate::text::excerpt(file);
        self.output.warn(format_args!("prefetch file {file} of {platform}: {reason}"));
    }
}

/// Shows how far layers are, and says nothing.
pub(crate) struct BarsOnly(Bars);

impl BarsOnly {
    pub(crate) fn new(output: &Output) -> Self {
        Self(Bars::new(output))
    }
}

impl Progress for BarsOnly {
    fn layer(&self, layer: &Descriptor, event: LayerEvent<'_>) {
        self.0.show(layer, &event);
    }
}

/// Shows a pull.
pub(crate) struct PullView {
    output: Arc<Output>,
    lines: bool,
    bars: Bars,
}

impl PullView {
    pub(crate) fn new(output: Arc<Output>, lines: bool) -> Self {
        let bars = Bars::new(&output);
        Self { output, lines, bars }
    }
}

impl PullProgress for PullView {
    fn layer(&self, layer: &Descriptor, event: PullEvent) {
        match event {
            PullEvent::Downloading => self.bars.start(layer),
            PullEvent::Advanced(bytes) => self.bars.with(layer, |bar| bar.inc(bytes)),
            PullEvent::Unpacking | PullEvent::Cancelled => {
                self.bars.with(layer, ProgressBar::finish_and_clear)
            }
            PullEvent::Done(outcome) if self.lines => {
                let words = match outcome {
                    LayerOutcome::Present => "there already",
                    LayerOutcome::Lazy => "lazy",
                    LayerOutcome::Local => "unpacked by the snapshotter",
                    LayerOutcome::Downloaded => "downloaded and unpacked",
                };
                // A closed stdout shows again when the result is printed.
                let _ = self.output.line(format_args!("layer {}: {words}", layer.digest));
            }
            PullEvent::Done(_) => {}
        }
    }
}

/// Shows a copy, and counts what it moves.
pub(crate) struct CopyView {
    bars: Bars,
    counts: Mutex<CopyCounts>,
}

#[derive(Debug, Default)]
struct CopyCounts {
    there: usize,
    mounted: usize,
    moved: usize,
    bytes: u64,
}

impl CopyView {
    pub(crate) fn new(output: &Output) -> Self {
        Self { bars: Bars::new(output), counts: Mutex::default() }
    }

    /// `3 blobs there already, 5 mounted, 2 moved (1234 bytes)`.
    pub(crate) fn summary(&self) -> String {
        let Ok(counts) = self.counts.lock() else { return String::new() };
        let parts = [
            (counts.there, "there already".to_owned()),
            (counts.mounted, "taken over within the registry".to_owned()),
            (counts.moved, format!("moved ({})", indicatif::HumanBytes(counts.bytes))),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
        format!("blobs: {}", if parts.is_empty() { "none".to_owned() } else { parts.join(", ") })
    }
}

impl CopyProgress for CopyView {
    fn blob(&self, blob: &Descriptor, event: CopyEvent) {
        match event {
            CopyEvent::Started => self.bars.start(blob),
            CopyEvent::Advanced(bytes) => self.bars.with(blob, |bar| bar.inc(bytes)),
            CopyEvent::Done(how) => {
                self.bars.with(blob, ProgressBar::finish_and_clear);
                let Ok(mut counts) = self.counts.lock() else { return };
                match how {
                    Copied::There => counts.there += 1,
                    Copied::Mounted => counts.mounted += 1,
                    Copied::Moved => {
                        counts.moved += 1;
                        counts.bytes += blob.size;
                    }
                }
            }
        }
    }
}

/// Shows a push.
pub(crate) struct PushView<'a> {
    pub(crate) output: &'a Output,
    pub(crate) image: Digest,
    pub(crate) quiet: bool,
}

impl PushProgress for PushView<'_> {
    fn event(&self, event: PushEvent<'_>) {
        if self.quiet {
            return;
        }
        let found = |existing: &[Descriptor]| match existing {
            [one] => format!("soci index found in remote repository with digest: {}", one.digest),
            _ => "multiple soci indices found in remote repository".to_owned(),
        };
        let line = match event {
            PushEvent::CheckingExisting => {
                "checking if a soci index already exists in remote repository...".to_owned()
            }
            PushEvent::Existing { indexes, skip: true } => {
                format!("{}: skipping pushing artifacts for image manifest: {}", found(indexes), self.image)
            }
            PushEvent::Existing { indexes, skip: false } => {
                format!("[WARN] {}: pushing index anyway", found(indexes))
            }
            PushEvent::PushingIndex(digest) => format!("pushing soci index with digest: {digest}"),
            PushEvent::Pushing(digest) => format!("pushing artifact with digest: {digest}"),
            PushEvent::Pushed(digest) => format!("successfully pushed artifact with digest: {digest}"),
            PushEvent::Skipped(digest) => format!("skipped artifact with digest: {digest}"),
        };
        // A closed stdout is no reason to leave a push half done.
        let _ = self.output.line(line);
    }
}
