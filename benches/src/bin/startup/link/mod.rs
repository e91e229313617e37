//! A link with a delay and a rate, between this network namespace and another, for kernels without a shaper of their own:
//! two TUN devices, between which this process carries the packets.
//!
//! Each direction is a transmitter of the profile's rate behind a queue that is bounded (what does not fit is dropped, as
//! routers do), and then half of the round-trip time. The profile may change while the link is up.

mod profile;
mod tun;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;

pub(crate) use profile::Profile;
use tun::{LARGEST, Tun, wire_size};
use watch::Watch;

/// Packets that are due so soon are sent now: waking up for each would cost more than it is worth.
const EARLY: Duration = Duration::from_micros(40);
/// Faster than this, packets are carried many at once.
const COMBINE_ABOVE: u64 = 2_000_000_000;

/// What one direction carries.
#[derive(Default)]
struct Direction {
    bytes: AtomicU64,
    dropped: AtomicU64,
}

/// What both directions have in common.
#[derive(Default)]
struct Shape {
    delay_nanos: AtomicU64,
    /// Bits in a second; 0 for as many as there are.
    rate: AtomicU64,
    /// Bytes.
    queue: AtomicU64,
}

/// The link. It is up until the process ends.
pub(crate) struct Link {
    near: Arc<Tun>,
    far: Arc<Tun>,
    shape: Arc<Shape>,
    up: Arc<Direction>,
    down: Arc<Direction>,
}

/// Bytes that were carried so far, with the headers of all packets, and packets that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) dropped: u64,
}

impl Link {
    /// Makes the two devices and carries packets between them, at first without delay and limit.
    pub(crate) fn new(near: &str, far: &str) -> anyhow::Result<Self> {
        let open = |name: &str| Tun::new(name).with_context(|| format!("cannot make the TUN device {name}"));
        let (near, far) = (Arc::new(open(near)?), Arc::new(open(far)?));
        let link = Self { near, far, shape: Arc::default(), up: Arc::default(), down: Arc::default() };
        carry(&link.near, &link.far, &link.shape, &link.up);
        carry(&link.far, &link.near, &link.shape, &link.down);
        Ok(link)
    }

    /// Takes a profile; `None` for no delay and no limit.
    pub(crate) fn set(&self, profile: Option<&Profile>) -> anyhow::Result<()> {
        let (rtt, rate) = profile.map_or((Duration::ZERO, 0), |profile| (profile.rtt, profile.rate));
        let combine = rate == 0 || rate > COMBINE_ABOVE;
        for device in [&self.near, &self.far] {
            device.combine(combine).context("cannot set up the TUN device")?;
        }
        let product = (rate as f64 / 8.0 * rtt.as_secs_f64()) as u64;
        self.shape.queue.store(2 * product + (256 << 10), Ordering::Relaxed);
        self.shape.rate.store(rate, Ordering::Relaxed);
        self.shape.delay_nanos.store((rtt / 2).as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Counts what comes from the registry, by tenths of a second.
    pub(crate) fn watch(&self, began: Instant) -> Watch {
        Watch::start(Arc::clone(&self.down), began)
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            up: self.up.bytes.load(Ordering::Relaxed),
            down: self.down.bytes.load(Ordering::Relaxed),
            dropped: self.up.dropped.load(Ordering::Relaxed) + self.down.dropped.load(Ordering::Relaxed),
        }
    }
}

/// Carries packets from one device to the other, on two threads that end with the process.
fn carry(from: &Arc<Tun>, to: &Arc<Tun>, shape: &Arc<Shape>, direction: &Arc<Direction>) {
    let (sender, packets) = channel();
    let (from, to, shape, direction) =
        (Arc::clone(from), Arc::clone(to), Arc::clone(shape), Arc::clone(direction));
    std::thread::spawn(move || transmit(&from, &shape, &direction, &sender));
    std::thread::spawn(move || deliver(&to, &packets));
}

fn transmit(from: &Tun, shape: &Shape, direction: &Direction, sender: &Sender<(Instant, Vec<u8>)>) {
    prefer();
    let mut buffer = vec![0; LARGEST];
    // When the transmitter will have sent what it has.
    let mut free = Instant::now();
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            // The interface is not up yet.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
        };
        let packet = &buffer[..length];
        let (now, size) = (Instant::now(), wire_size(packet));
        let rate = shape.rate.load(Ordering::Relaxed);
        free = free.max(now);
        if rate > 0 {
            let waiting = (free - now).as_secs_f64() * rate as f64 / 8.0;
            if waiting > shape.queue.load(Ordering::Relaxed) as f64 {
                direction.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            free += Duration::from_secs_f64(size as f64 * 8.0 / rate as f64);
        } else {
            free = now;
        }
        direction.bytes.fetch_add(size, Ordering::Relaxed);
        let due = free + Duration::from_nanos(shape.delay_nanos.load(Ordering::Relaxed));
        if sender.send((due, packet.to_vec())).is_err() {
            return;
        }
    }
}

fn deliver(to: &Tun, packets: &Receiver<(Instant, Vec<u8>)>) {
    prefer();
    for (due, packet) in packets {
        let wait = due.saturating_duration_since(Instant::now());
        if wait > EARLY {
            std::thread::sleep(wait);
        }
        // An interface that is down loses packets, as a cable would.
        let _ = to.write(&packet);
    }
}

/// Wakes this thread on time and before others: what is measured must not make the link slower. Where that is not
/// allowed, the link's own check shows it.
fn prefer() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1000));
    let _ = rustix::process::nice(-15);
}
