//! How long a container takes from the pull command to the line that says that it is ready: lazily, eagerly, with
//! containerd's own snapshotter, and with those of others.
//!
//! A real registry behind a link with a delay and a rate, real containerd and runc, everything cold each time. See
//! docs/benchmarks.md.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::panic,
        clippy::single_range_in_vec_init,
        reason = "a test that meets something unexpected stops there"
    )
)]

mod chart;
mod container;
mod floor;
mod images;
mod interrupt;
mod link;
mod measure;
mod node;
mod overview;
mod pages;
mod report;
mod requests;
mod site;
mod stats;
mod svg;
mod touched;
mod usage;
mod variant;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use benches::process::sibling;
use clap::Parser;
use testdata::need::{Need, available};
use testdata::workloads::startup_names;

use floor::Local;
use images::{Image, SMOKE};
use link::Profile;
use overview::Overview;
use report::{Group, ImageReport, LayerReport, LinkReport, Machine, Report, VariantReport};
use site::Site;
use variant::Variant;

/// What it needs of the machine.
const NEEDS: &[Need] = &[
    Need::Root,
    Need::Fuse,
    Need::Tun,
    Need::Program("containerd", "containerd"),
    Need::Program("ctr", "containerd"),
    Need::Program("runc", "runc"),
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("skopeo", "skopeo"),
    Need::Program("ip", "iproute2"),
    Need::Program("setpriv", "util-linux"),
];

/// The links of addresses that this uses; a proxy cannot reach them.
const NETWORK: &str = "198.18.0.0/15";

const EXAMPLES: &str = "\
EXAMPLES
  startup                                          everything: six images, three links, four variants, 5 runs each
  startup --image redis --profile 10ms/1gbit       one image over one link
  startup --image torch --variant lazy --runs 3    the large image, our lazy snapshotter only
  startup --smoke                                  does it work at all? a tiny image, one start each
  startup --chart docs/start.svg --recorded docs/benchmarks.md    the README's chart from its recorded rows

  startup --peer 'stargz=/run/containerd-stargz-grpc/containerd-stargz-grpc.sock,ctr-remote --address {address} \
-n {namespace} image rpull --plain-http {ref}' --peer-reset 'stargz=systemctl restart stargz-snapshotter'

Images are made of Debian packages the first time and kept in target/workloads: a few minutes, 4 GB.
The results are printed and written to the directory of --out: results.json, table.txt, chart.svg.
Each start is cold: new root directories, the kernel's caches emptied (of the whole machine), new connections.";

/// Measures starts of containers from the pull command to the line that says that the program is ready.
#[derive(Debug, Parser)]
#[command(after_long_help = EXAMPLES, after_help = "--help shows examples")]
struct Args {
    /// An image: redis, nginx, node, postgres, tomcat, torch or smoke; may be repeated [default: all but smoke]
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<String>,
    /// A link, as round-trip time and rate; may be repeated [default: 0.2ms/10gbit 10ms/1gbit 50ms/100mbit]
    #[arg(long = "profile", value_name = "RTT/RATE")]
    profiles: Vec<Profile>,
    /// What starts them: lazy, recorded, eager or overlayfs; may be repeated [default: all four]
    #[arg(long = "variant", value_name = "NAME")]
    variants: Vec<String>,
    /// Another snapshotter that listens at SOCKET: COMMAND pulls {ref} into containerd at {address}, into {namespace}, with
    /// {snapshotter}, which is NAME; may be repeated
    #[arg(long = "peer", value_name = "NAME=SOCKET,COMMAND")]
    peers: Vec<String>,
    /// A shell command that makes a peer cold, run before each of its starts: it has to end up listening, with nothing cached,
    /// and reach {registry} (address and port) over plain HTTP; containerd, if it asks for it, is at {address}
    #[arg(long = "peer-reset", value_name = "NAME=COMMAND")]
    peer_resets: Vec<String>,
    /// Starts of each image in each way over each link
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Settings for our daemon: a TOML file without the sections registry, content_store and pull_modes
    #[arg(long, value_name = "FILE")]
    daemon_config: Option<PathBuf>,
    /// Where results.json, table.txt, chart.svg and the daemon's logs are written
    #[arg(long, value_name = "DIR", default_value = "target/startup")]
    out: PathBuf,
    /// Draw a start with this snapshotter and without it, of the largest image, to FILE
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Draw the rows that DOCUMENT has recorded, and measure nothing
    #[arg(long, value_name = "DOCUMENT", requires = "chart")]
    recorded: Option<PathBuf>,
    /// Where the registry keeps its files while this runs
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    directory: PathBuf,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
    /// A tiny image, the link 10ms/1gbit and one start each, to see whether everything works
    #[arg(long, conflicts_with_all = ["images", "profiles", "runs"])]
    smoke: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(chart), Some(document)) = (&args.chart, &args.recorded) {
        let text = std::fs::read_to_string(document);
        let text = text.with_context(|| format!("cannot read {}", document.display()))?;
        return write(chart, &Overview::of_document(&text)?.draw());
    }
    let variants =
        Variant::select(&args.variants, &args.peers, &args.peer_resets).map_err(anyhow::Error::msg)?;
    let known: Vec<_> = startup_names().into_iter().chain([SMOKE]).collect();
    if let Some(name) = args.images.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("{name:?} is no image; there are {}", known.join(", "));
    }
    without_proxy()?;
    if !available(NEEDS) {
        bail!("the benchmark cannot run here, see above; on Debian scripts/install-test-dependencies helps");
    }
    if cfg!(debug_assertions) && !args.smoke {
        eprintln!("this is a development build: its times mean nothing. `make bench` builds a release");
    }
    interrupt::watch()?;
    let report = run(&args, &variants)?;
    std::fs::create_dir_all(&args.out)?;
    let (json, table) = (serde_json::to_string_pretty(&report)?, report.table());
    for (name, text) in [("results.json", &json), ("table.txt", &table), ("chart.svg", &chart::draw(&report))]
    {
        write(&args.out.join(name), text)?;
    }
    println!("{}", if args.json { &json } else { &table });
    eprintln!("written: results.json, table.txt, chart.svg in {}", args.out.display());
    if let Some(path) = &args.chart {
        let overview = Overview::of_run(&report);
        let overview = overview.context("no chart: no image was started both lazily and by overlayfs")?;
        write(path, &overview.draw())?;
        eprintln!("written: {}, which shows these rows:\n\n{}", path.display(), overview.table());
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn run(args: &Args, variants: &[Variant]) -> anyhow::Result<Report> {
    let began = Instant::now();
    let progress = |text: &str| eprintln!("[{:>6.1} s] {text}", began.elapsed().as_secs_f64());
    let default = |profiles: &[&str]| -> anyhow::Result<Vec<Profile>> {
        profiles.iter().map(|text| text.parse().map_err(anyhow::Error::msg)).collect()
    };
    let (names, profiles, runs) = if args.smoke {
        (vec![SMOKE.to_owned()], default(&["10ms/1gbit"])?, 1)
    } else {
        let names = startup_names().into_iter().map(str::to_owned).collect();
        let names = if args.images.is_empty() { names } else { args.images.clone() };
        let profiles = if args.profiles.is_empty() {
            default(&["0.2ms/10gbit", "10ms/1gbit", "50ms/100mbit"])?
        } else {
            args.profiles.clone()
        };
        (names, profiles, usize::from(args.runs))
    };
    let directory = tempfile::Builder::new().prefix("soci-startup-").tempdir_in(&args.directory)?;
    let mut site = Site::start(directory.path())?;
    if let Some(path) = &args.daemon_config {
        let text = std::fs::read_to_string(path);
        site.daemon_config = text.with_context(|| format!("cannot read {}", path.display()))?;
    }
    let site = site;
    progress(&format!("a registry in a network namespace of its own: {}", site.host()));
    let images = images::prepare(&site, directory.path(), &names, &progress)?;

    let mut links = Vec::new();
    let largest = images.iter().flat_map(|image| Some((image, image.largest()?)));
    let (image, layer) = largest.max_by_key(|(_, layer)| layer.size).context("no layer")?;
    for profile in &profiles {
        let measured = site.check(profile, image.repository(), &layer.digest)?;
        links.push(LinkReport { profile: profile.to_string(), measured });
    }
    let mut reports = Vec::new();
    let mut results = Vec::new();
    for image in &images {
        progress(&format!("{}: the floor: starts with everything local, and what they read", image.name));
        let local = Local::measure(&site, image, runs)?;
        for profile in &profiles {
            results.push(group(
                &site,
                image,
                profile,
                (variants, runs),
                &local,
                &args.out.join("logs"),
                &progress,
            )?);
        }
        reports.push(describe(image, local));
    }
    Ok(Report { format: 1, machine: machine(), runs, links, images: reports, results })
}

/// All starts of an image over a link. The variants take turns, so that a machine that changes its speed does so for all.
fn group(
    site: &Site,
    image: &Image,
    profile: &Profile,
    (variants, runs): (&[Variant], usize),
    local: &Local,
    logs: &Path,
    progress: &dyn Fn(&str),
) -> anyhow::Result<Group> {
    let mut samples = vec![Vec::new(); variants.len()];
    let mut pulls = Vec::new();

    for number in 1..=runs {
        pulls.push(floor::empty_pull(site, image, profile)?);
        for (variant, samples) in variants.iter().zip(&mut samples) {
            let (sample, log) = measure::start(site, image, variant, profile)
                .with_context(|| format!("{} over {profile} by {}", image.name, variant.name()))?;
            keep(logs, &format!("{}-{profile}-{}-{number}", image.name, variant.name()), &log)?;
            progress(&format!(
                "{} {profile} {} {number}/{runs}: pull {:.2} s, ready after {:.2} s",
                image.name,
                variant.name(),
                sample.pull,
                sample.total
            ));
            samples.push(sample);
        }
    }
    let floor = local.floor(profile, &pulls);
    let variants = variants.iter().zip(samples);
    let variants = variants.map(|(variant, samples)| VariantReport::new(variant.name(), &floor, samples));
    Ok(Group { image: image.name.clone(), profile: profile.to_string(), variants: variants.collect(), floor })
}

/// Keeps the log of a start's daemon.
fn keep(logs: &Path, name: &str, log: &str) -> anyhow::Result<()> {
    if log.is_empty() {
        return Ok(());
    }
    let path = logs.join(format!("{}.log", name.replace('/', "-")));
    let written = std::fs::create_dir_all(logs).and_then(|()| std::fs::write(&path, log));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn describe(image: &Image, local: Local) -> ImageReport {
    let layers = image.layers.iter().map(|layer| LayerReport {
        digest: layer.digest.clone(),
        compressed: layer.size,
        uncompressed: layer.uncompressed,
        spans: layer.ztoc.as_ref().map(|ztoc| ztoc.spans().len()),
    });
    ImageReport { name: image.name.clone(), size: image.size(), layers: layers.collect(), local }
}

fn machine() -> Machine {
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    Machine {
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        containerd: version(Path::new("containerd")),
        registry: version(Path::new("docker-registry")),
        soci: sibling("soci").map_or_else(|_| String::new(), |soci| version(&soci)),
    }
}

/// Runs itself anew if a proxy is set that would be asked for the registry: every program that is started inherits this.
fn without_proxy() -> anyhow::Result<()> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let proxy = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].into_iter().find_map(set);
    let exceptions = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
    if proxy.is_none() || exceptions.contains(NETWORK) {
        return Ok(());
    }
    let exceptions = if exceptions.is_empty() { NETWORK.into() } else { format!("{exceptions},{NETWORK}") };
    let error = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env("no_proxy", &exceptions)
        .env("NO_PROXY", &exceptions)
        .exec();
    Err(error).context("cannot run this program anew")
}
