//! nerdctl on a node, with everything that it keeps in the node's directories.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use testdata::clients::Client;
use testdata::docker_registry::DockerRegistry;
use testdata::need::{Need, available};
use testdata::workloads::Workloads;

use crate::daemon::{eventually, index, program};
use crate::node::{Node, Pull, SOCI, said};

/// Whether there is a nerdctl; says aloud if there is none. It needs containerd 2.
pub(crate) fn can_run(node: &Node) -> bool {
    node.containerd.release().is_current() && available(&[Need::Client(Client::Nerdctl)])
}

/// nerdctl in namespace `default` with the daemon as snapshotter, to be given its arguments.
pub(crate) fn command(node: &Node) -> Command {
    let home = node.containerd.directory();
    // It runs `soci`.
    let own = program("soci").parent().unwrap().to_owned();
    let others = node.containerd.release().path();
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&others))).unwrap();
    let mut command = Command::new(Client::Nerdctl.program("nerdctl").unwrap());
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", node.daemon.file("home"))
        .env("NERDCTL_TOML", home.join("nerdctl.toml"))
        .args(["--address", &node.containerd.address(), "--snapshotter", SOCI])
        .arg("--data-root")
        .arg(home.join("nerdctl"))
        .arg("--hosts-dir")
        .arg(node.containerd.certs_d())
        .args(["--cni-path", testdata::containerd::CNI_PLUGINS])
        .arg("--cni-netconfpath")
        .arg(home.join("nerdctl-cni"))
        .args(["--cgroup-manager", "cgroupfs", "--bridge-ip", "10.213.77.1/24"])
        .stdin(Stdio::null());
    command
}

/// Runs nerdctl.
pub(crate) fn run(node: &Node, arguments: &[&str]) -> Output {
    command(node).args(arguments).output().unwrap()
}

/// Runs nerdctl, which must succeed; returns what it printed.
pub(crate) fn ok(node: &Node, arguments: &[&str]) -> String {
    let output = run(node, arguments);
    assert!(output.status.success(), "nerdctl {arguments:?}: {}\n{}", said(&output), node.containerd.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The bridge of nerdctl's default network, which nothing else removes.
struct Bridge {
    was_there: bool,
}

impl Bridge {
    const NAME: &str = "nerdctl0";

    fn new() -> Self {
        Self { was_there: std::path::Path::new("/sys/class/net").join(Self::NAME).exists() }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if !self.was_there {
            let _ = Command::new("ip").args(["link", "delete", Self::NAME]).output();
        }
    }
}

/// Everything that a user of nerdctl does with an image and its containers, one after the other. With the overlayfs
/// snapshotter each of these steps works as well.
#[test]
fn what_people_do_with_nerdctl_works_with_lazy_images() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = Node::start() else { return };
    if !can_run(&node) {
        return;
    }
    node.containerd.allow_http(registry.host());
    let name = |tag: &str| format!("{}/{tag}", registry.host());
    let workloads = Workloads::get();
    let Some(workloads) = workloads else { return };
    let plain = workloads.named("redis").push(&registry);
    let ok = |arguments: &[&str]| ok(&node, arguments);
    let shell = |container: &str, script: &str| ok(&["exec", container, "/bin/sh", "-c", script]);

    // An image without an index, which `push` and `image convert` give one.
    ok(&["pull", "--quiet", &plain]);
    let alive = node.containerd.pid();
    ok(&["push", "--quiet", "--soci-min-layer-size", "0", &plain]);
    let converted = name("converted:v1");
    ok(&["image", "convert", "--soci", "--soci-min-layer-size", "0", "--oci", &plain, &converted]);
    ok(&["push", "--quiet", "--snapshotter", "overlayfs", &converted]);
    ok(&["rmi", "--force", &plain, &converted]);
    assert!(node.snapshots("default").is_empty(), "{:?}", node.snapshots("default"));
    for image in [&plain, &converted] {
        ok(&["pull", "--quiet", image]);
        let modes = node.daemon.modes(image);
        assert!(!modes.is_empty() && modes.iter().all(|(mode, _)| mode == "lazy"), "{image}: {modes:?}");
        ok(&["rmi", "--force", image]);
    }

    // Containers.
    let stay = ["/bin/sh", "-c", "echo started > /root/own; exec sleep infinity"];
    ok(&[&["run", "--detach", "--name", "one", "--net", "none", &plain][..], &stay].concat());
    assert_eq!(shell("one", "cat /root/own"), "started\n");
    let file = node.daemon.file("file");
    std::fs::write(&file, "copied\n").unwrap();
    ok(&["cp", &file.display().to_string(), "one:/root/copied"]);
    assert_eq!(shell("one", "cat /root/copied"), "copied\n");
    let sum = shell("one", "sha256sum /srv/lower/kept/1");
    ok(&["cp", "one:/srv/lower/kept/1", &file.display().to_string()]);
    let bytes = std::fs::read(&file).unwrap();
    assert!(sum.starts_with(testdata::digest::sha256(&bytes).trim_start_matches("sha256:")), "{sum}");
    let committed = name("committed:v1");
    ok(&["commit", "one", &committed]);
    let script = "cat /root/own /root/copied; sha256sum /srv/lower/kept/1";
    let printed = ok(&["run", "--rm", "--net", "none", &committed, "/bin/sh", "-c", script]);
    assert_eq!(printed, format!("started\ncopied\n{sum}"));
    ok(&["push", "--quiet", "--soci-min-layer-size", "0", &committed]);
    ok(&["rm", "--force", "one"]);

    // Archives: what was never fetched is fetched for them.
    let archive = node.daemon.file("saved.tar").display().to_string();
    ok(&["save", "--output", &archive, &plain]);
    ok(&["rmi", "--force", &plain, &committed]);
    ok(&["load", "--input", &archive]);
    let printed =
        ok(&["run", "--rm", "--net", "none", &plain, "/bin/sh", "-c", "sha256sum /srv/lower/kept/1"]);
    assert_eq!(printed, sum);

    // Compose, with a network of its own.
    let project = node.daemon.file("project");
    std::fs::create_dir_all(&project).unwrap();
    let command_of_both = "[/bin/sh, -c, 'sha256sum /srv/lower/kept/1; exec sleep infinity']";
    let service = format!("{{image: \"{plain}\", command: {command_of_both}}}");
    let network = "networks: {default: {ipam: {config: [{subnet: 10.213.78.0/24}]}}}";
    let file = format!("services:\n  first: {service}\n  second: {service}\n{network}\n");
    std::fs::write(project.join("compose.yaml"), file).unwrap();
    let _bridge = Bridge::new();
    let compose = |arguments: &[&str]| {
        let output = command(&node).arg("compose").args(arguments).current_dir(&project).output().unwrap();
        assert!(output.status.success(), "compose {arguments:?}: {}", said(&output));
        said(&output)
    };
    compose(&["up", "--detach"]);
    eventually("both services have read the file", Duration::from_secs(60), || {
        let logs = compose(&["logs", "--no-color"]);
        if logs.matches(sum.trim()).count() == 2 { Ok(()) } else { Err(logs) }
    });
    compose(&["down"]);

    ok(&["system", "prune", "--all", "--force"]);
    assert!(node.snapshots("default").is_empty(), "{:?}", node.snapshots("default"));
    assert_eq!(node.containerd.pid(), alive);
    assert!(node.containerd.ctr(&["version"]).status.success(), "{}", node.containerd.log());
}

/// nerdctl's own `--soci-index-digest` does not get through the transfer service.
#[test]
fn the_configuration_chooses_the_index_of_an_image_that_nerdctl_pulls() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(workloads) = Workloads::get() else { return };
    let reference = workloads.named("redis").push(&registry);
    let spans = |size: &str| {
        index(&reference, &["--min-layer-size", "0", "--span-size", size, "--existing-index", "allow"])
    };
    let [first, last] = ["1048576", "2097152"].map(spans);
    for chosen in [&first, &last] {
        let rule = format!("[pull_modes.index.\"{reference}\"]\ndigest = \"{chosen}\"\n");
        let Some(node) = Node::with(&rule) else { return };
        if !can_run(&node) {
            return;
        }
        node.pull(Pull::Nerdctl, &reference);
        let status = node.daemon.status();
        let image = &status["images"][0];
        assert!(image["image"] == reference.as_str() && image["index"] == chosen.as_str(), "{status:#}");
    }
}
