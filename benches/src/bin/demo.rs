//! The whole product in one run, with no service from outside: an in-process registry, an image made of files of this
//! machine, an index, a push, a lazy mount, a program run from it; and the same image pulled and unpacked, to compare.
//!
//! The link is shaped to what a cloud node has, so that the times mean something: 10 ms to the first byte, 1 Gbit/s.
#![expect(clippy::print_stdout, reason = "the output of a benchmark is for people")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use benches::host::{self, files};
use benches::process::{Mount, run, sibling};
use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder};
use testdata::registry::{Redirect, TestRegistry};

const LATENCY: Duration = Duration::from_millis(10);
const BANDWIDTH: u64 = 125_000_000;

/// Programs to run from the image: the first one that this machine has.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("/usr/bin/python3", &["-c", "import json, ssl, sqlite3; print('Hello from Python')"]),
    ("/usr/bin/perl", &["-e", "use POSIX; print \"Hello from Perl\\n\""]),
    ("/bin/sh", &["-c", "echo Hello from the shell"]),
];

/// Large things of this machine that make the image as large as real ones are, and that a start does not read.
const BALLAST: [&str; 4] = ["/usr/share", "/usr/lib/gcc", "/usr/lib/git-core", "/usr/bin"];
/// As much of it as goes into the image.
const BALLAST_SIZE: u64 = 400 << 20;

fn main() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo mounts an image and runs a program in it, which needs root: try `sudo make demo`");
    }
    let directory = tempfile::Builder::new().prefix("soci-demo-").tempdir_in("/var/tmp")?;
    let directory = directory.path();
    let (program, arguments) =
        PROGRAMS.into_iter().find(|(path, _)| Path::new(path).exists()).context("not even a shell here")?;

    step("making an image of three layers from files of this machine");
    let image = image(directory, program)?;
    let registry = TestRegistry::builder()
        .redirect_blobs(Redirect::default())
        .latency(LATENCY)
        .bandwidth(BANDWIDTH)
        .start_blocking();
    image.put_into(&registry, "demo", "1");
    let reference = format!("{}/demo:1", registry.host());
    let size: u64 = image.layers().iter().map(|layer| layer.size).sum();
    println!("  {reference}: {} in {} layers", megabytes(size), image.layers().len());

    step("soci create --push: building the SOCI index and pushing it beside the image");
    let indexing = Instant::now();
    let root = directory.join("root");
    run(Command::new(sibling("soci")?).arg("--root").arg(&root).args(["create", "--push", &reference]))?;
    let indexing = indexing.elapsed();
    let index_size = index_size(&root)?;

    step("soci-snapshotter-grpc mount: mounting it lazily, and running a program from it");
    registry.clear_requests();
    let mount = Mount::new(&reference, &directory.join("mnt"), &directory.join("node"), &[])?;
    let output = first_output(mount.directory(), program, arguments)?;
    let lazy = mount.started().elapsed();
    print!("  {output}");
    let (requests, fetched) = (registry.requests().len(), registry.bytes_sent());
    mount.finish()?;

    step("the same image, pulled and unpacked before the program starts");
    registry.clear_requests();
    let started = Instant::now();
    let mount = Mount::new(&reference, &directory.join("mnt"), &directory.join("node2"), &["--no-lazy"])?;
    ensure!(
        output == first_output(mount.directory(), program, arguments)?,
        "the two mounts give different output"
    );
    let full = started.elapsed();
    let pulled = registry.bytes_sent();
    mount.finish()?;

    println!("\n{:<44}{:>14}{:>14}", "", "LAZY", "FULL PULL");
    println!("{:<44}{:>14}", "image, compressed", megabytes(size));
    println!("{:<44}{:>14}", "SOCI index with its zTOCs", megabytes(index_size));
    println!("{:<44}{:>14}", "time to build and push the index", seconds(indexing));
    println!(
        "{:<44}{:>14}{:>14}",
        "bytes from the registry until first output",
        megabytes(fetched),
        megabytes(pulled)
    );
    println!("{:<44}{:>14}{:>14}", "time to first output", seconds(lazy), seconds(full));
    println!("{:<44}{:>14}", "requests until first output", requests);
    println!(
        "\nLazily, the program started {:.1} times sooner and {:.0} % of the bytes were fetched.",
        full.as_secs_f64() / lazy.as_secs_f64(),
        fetched as f64 * 100.0 / pulled as f64
    );
    Ok(())
}

fn step(text: &str) {
    println!("\n==> {text}");
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn first_output(root: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("chroot")
        .arg(root)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run chroot")?;
    if !output.status.success() {
        bail!("{program} failed in the mount: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A base layer of large things, a layer with the program, and a small one on top that changes both.
fn image(directory: &Path, program: &str) -> anyhow::Result<testdata::image::Image> {
    let mut app = HostFiles::new();
    app.binary(program).binary("/bin/sh");
    if program.ends_with("python3") {
        for library in python_library()? {
            app.tree(&library);
        }
        for module in shared_modules()? {
            app.binary(module);
        }
    } else if program.ends_with("perl") {
        for path in
            ["/usr/lib/x86_64-linux-gnu/perl-base", "/usr/lib/x86_64-linux-gnu/perl", "/usr/share/perl"]
        {
            if Path::new(path).exists() {
                app.tree(path);
            }
        }
    }
    let mut top = LayerBuilder::new(Compression::GZIP);
    top.add(Entry::dir("etc"))
        .add(Entry::file("etc/motd", "the demo image of soci-snapshotter\n".as_bytes()));
    Ok(ImageBuilder::new()
        .layer(host::layer(&directory.join("base"), &BALLAST, BALLAST_SIZE))
        .layer(app.layer_to(directory.join("app"), Compression::GZIP))
        .layer(top.finish())
        .build())
}

/// Where Python's own modules are.
fn python_library() -> anyhow::Result<Vec<PathBuf>> {
    let script = "import os, sqlite3; print(os.path.dirname(os.__file__))";
    let output = Command::new("/usr/bin/python3").args(["-c", script]).output()?;
    let library = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    Ok([library].into_iter().filter(|path| path.is_dir()).collect())
}

/// Python's modules in C, whose libraries have to come along.
fn shared_modules() -> anyhow::Result<Vec<PathBuf>> {
    let library = python_library()?;
    let modules = library.iter().flat_map(|path| files(&path.join("lib-dynload")));
    Ok(modules.filter(|path| path.extension().is_some_and(|extension| extension == "so")).collect())
}

/// Size of everything in the store: index manifest, configuration, zTOCs.
fn index_size(root: &Path) -> anyhow::Result<u64> {
    let blobs = root.join("content/blobs/sha256");
    let entries = std::fs::read_dir(&blobs).with_context(|| format!("no blobs in {}", blobs.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum())
}
