//! One start: an image that this machine has nothing of, from the pull command to the line that says that it is ready.

use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::container::Container;
use crate::images::Image;
use crate::interrupt;
use crate::link::Profile;
use crate::node::Node;
use crate::requests::Request;
use crate::site::Site;
use crate::variant::Variant;

/// What one start took until the image was ready.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// The pull command, in seconds.
    pub(crate) pull: f64,
    /// From its end to the ready line, in seconds.
    pub(crate) run: f64,
    /// Both.
    pub(crate) total: f64,
    /// From the registry over the link, with the headers of all packets.
    pub(crate) bytes: u64,
    /// To the registry.
    pub(crate) bytes_sent: u64,
    /// HTTP requests that were begun.
    pub(crate) requests: usize,
    /// Those of them that were begun before the pull's end.
    pub(crate) pull_requests: usize,
    /// The requests, in the order in which they began.
    pub(crate) timeline: Vec<Event>,
    /// Bytes that came in each tenth of a second from the start of the pull command on: where it is less than the link carries,
    /// something was waited for.
    pub(crate) arrivals: Vec<u64>,
    /// Packets that the link's queue had no room for.
    pub(crate) dropped: u64,
    /// Processor time of containerd, snapshotter, clients and container, in seconds.
    pub(crate) cpu: f64,
    /// Largest resident size of containerd, in bytes.
    pub(crate) containerd_memory: u64,
    /// The same of the snapshotter, if it is a process of its own.
    pub(crate) snapshotter_memory: u64,
}

/// A request, as the registry sees it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    /// Since the start of the pull command, in seconds.
    pub(crate) at: f64,
    /// Until the last byte was handed to the registry's kernel, in seconds.
    pub(crate) took: f64,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Of the body.
    pub(crate) bytes: u64,
}

/// Starts an image once. Also returns what our daemon logged, if it was ours.
pub(crate) fn start(
    site: &Site,
    image: &Image,
    variant: &Variant,
    profile: &Profile,
) -> anyhow::Result<(Sample, String)> {
    let node = cold(site, variant, image.blobs())?;
    site.link.set(Some(profile))?;
    let (mark, before, cpu) = (site.mark(), site.link.counters(), node.cpu());
    let (began, clock) = (Instant::now(), SystemTime::now());
    let arrivals = site.link.watch(began);
    node.pull(&image.reference)?;
    let pulled = began.elapsed();
    let (container, ready) = Container::run(&node, &image.reference, &image.ready)?;
    let arrivals = arrivals.end();
    let after = site.link.counters();
    let cpu = node.cpu() - cpu;
    let [containerd_memory, snapshotter_memory] = node.memory();
    let total = ready - began;
    // What is under way does not matter any more.
    site.link.set(None)?;
    let log = node.daemon_log();
    drop(container);
    drop(node);
    // A request stands in the log once it is answered.
    let mut timeline: Vec<_> =
        site.requests(mark)?.into_iter().map(|request| event(request, clock)).collect();
    timeline.retain(|event| event.at <= total.as_secs_f64());
    timeline.sort_by(|one, other| one.at.total_cmp(&other.at));
    let sample = Sample {
        pull: pulled.as_secs_f64(),
        run: total.saturating_sub(pulled).as_secs_f64(),
        total: total.as_secs_f64(),
        bytes: after.down - before.down,
        bytes_sent: after.up - before.up,
        requests: timeline.len(),
        pull_requests: timeline.iter().filter(|event| event.at <= pulled.as_secs_f64()).count(),
        timeline,
        arrivals,
        dropped: after.dropped - before.dropped,
        cpu,
        containerd_memory,
        snapshotter_memory,
    };
    Ok((sample, log))
}

fn event(request: Request, start: SystemTime) -> Event {
    let at = match request.began.duration_since(start) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    let Request { took, bytes, method, path, .. } = request;
    Event { at, took: took.as_secs_f64(), bytes, method, path }
}

/// A node that is new, on a machine that has nothing in memory; only the registry has.
fn cold<'d>(site: &Site, variant: &Variant, blobs: impl Iterator<Item = &'d str>) -> anyhow::Result<Node> {
    interrupt::check()?;
    benches::caches::drop_all()?;
    site.warm(blobs)?;
    Node::start(variant, site)
}
