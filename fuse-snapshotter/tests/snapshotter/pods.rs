//! Pods as the kubelet makes them, by crictl: a pause image, a network, an image as a volume, a user namespace.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testdata::clients::Client;
use testdata::containerd::Options;
use testdata::docker_registry::DockerRegistry;
use testdata::image::host::HostFiles;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder};
use testdata::need::{Need, available};

use crate::daemon::{eventually, index, publish};
use crate::node::{Node, Pull, said};

/// The one program in the images of these tests.
const SHELL: &str = "/bin/busybox";
/// What makes the large files of two images differ.
const IMAGE: u64 = 7;
const VOLUME: u64 = 11;

/// The contents of the large file of an image.
fn large(seed: u64) -> Vec<u8> {
    (0..500_000_u64).flat_map(|i| (i * seed).to_string().into_bytes()).collect()
}

/// A program, and a file of which nothing is read before it is asked for.
fn program_image(seed: u64) -> Image {
    let mut data = LayerBuilder::new(Compression::GZIP);
    data.add(Entry::file("data/large", large(seed)));
    let program = HostFiles::new().binary(SHELL).layer(Compression::GZIP);
    ImageBuilder::new().layer(program).layer(data.finish()).cmd(&[SHELL, "sleep", "1000000"]).build()
}

/// crictl on a node.
struct Crictl<'n>(&'n Node);

impl Crictl<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let endpoint = format!("unix://{}", self.0.containerd.address());
        Command::new(Client::Crictl.program("crictl").unwrap())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.0.daemon.file("home"))
            .args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "--timeout", "60s"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let log = || self.0.containerd.log();
        assert!(output.status.success(), "crictl {arguments:?}: {}\n{}", said(&output), log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A file with what crictl is to make.
    fn file(&self, name: &str, content: &Value) -> String {
        let path: PathBuf = self.0.daemon.file(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    }

    /// Runs a container in a new pod, and returns what it has printed when `ready` is among it. Both are removed.
    fn lines_of(&self, name: &str, options: &Value, container: &Value, ready: &str) -> String {
        let logs = self.0.daemon.file(name).display().to_string();
        std::fs::create_dir_all(&logs).unwrap();
        let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}")});
        let context = json!({"security_context": {"namespace_options": options}});
        let pod = json!({"metadata": metadata, "log_directory": logs, "linux": context});
        let mut container = container.clone();
        container["metadata"] = json!({"name": name});
        container["log_path"] = json!("log");
        container["linux"] = context;
        let pod_file = self.file(&format!("{name}-pod.json"), &pod);
        let container_file = self.file(&format!("{name}-container.json"), &container);
        let pod = self.ok(&["runp", &pod_file]);
        let id = self.ok(&["create", &pod, &container_file, &pod_file]);
        self.ok(&["start", &id]);
        let mut printed = String::new();
        eventually(ready, Duration::from_secs(60), || {
            printed = self.ok(&["logs", &id]);
            if printed.contains(ready) { Ok(()) } else { Err(printed.clone()) }
        });
        self.ok(&["stopp", &pod]);
        self.ok(&["rmp", &pod]);
        printed
    }
}

/// Releases before 2 know neither images as volumes nor user namespaces.
fn node(registry: &DockerRegistry) -> Option<Node> {
    if !available(&[Need::Client(Client::Crictl)]) {
        return None;
    }
    let pause = publish(registry, &program_image(1), "pause:1");
    let node = Node::of(Options::new().pause_image(&pause), "")?;
    node.containerd.allow_http(registry.host());
    Some(node)
}

fn publish_indexed(registry: &DockerRegistry, image: &Image, name: &str) -> String {
    let reference = publish(registry, image, name);
    index(&reference, &["--min-layer-size", "0"]);
    reference
}

/// The digest of the large file of an image, as `sha256sum` prints it.
fn digest_of_large(seed: u64) -> String {
    testdata::digest::sha256(&large(seed)).trim_start_matches("sha256:").to_owned()
}

#[test]
fn a_pod_runs_lazily_and_has_an_image_as_a_volume() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = node(&registry) else { return };
    let (image, volume) = (program_image(IMAGE), program_image(VOLUME));
    let reference = publish_indexed(&registry, &image, "app:v1");
    let volume_reference = publish_indexed(&registry, &volume, "volume:v1");
    let crictl = Crictl(&node);
    crictl.ok(&["pull", &reference]);
    assert!(node.daemon.modes(&reference).iter().all(|(mode, _)| mode == "lazy"));
    let mut container = json!({
        "image": {"image": reference},
        "command": [SHELL, "sh", "-c", format!("{SHELL} sha256sum /data/large /volume/data/large; echo done; {SHELL} sleep 1000")],
    });
    let volumes = node.containerd.release().is_current();
    if volumes {
        crictl.ok(&["pull", &volume_reference]);
        assert!(node.daemon.modes(&volume_reference).iter().all(|(mode, _)| mode == "lazy"));
        let mount =
            json!({"container_path": "/volume", "readonly": true, "image": {"image": volume_reference}});
        container["mounts"] = json!([mount]);
    }
    // The network is the node's.
    let printed = crictl.lines_of("volume", &json!({"network": 2}), &container, "done");
    assert!(printed.contains(&format!("{}  /data/large", digest_of_large(IMAGE))), "{printed}");
    if volumes {
        assert!(printed.contains(&format!("{}  /volume/data/large", digest_of_large(VOLUME))), "{printed}");
    }
    for reference in if volumes { vec![&reference, &volume_reference] } else { vec![&reference] } {
        crictl.ok(&["rmi", reference]);
    }
    eventually("the snapshots are gone", Duration::from_secs(30), || {
        let left = node.snapshots(Pull::Cri.namespace());
        // Those of the pause image stay.
        if left.len() <= 2 { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_pod_in_a_user_namespace_sees_its_own_owners() {
    let Some(registry) = DockerRegistry::start() else { return };
    let Some(node) = node(&registry) else { return };
    if !node.containerd.release().is_current() {
        return;
    }
    // Nothing of it is left when the pod ends.
    let addresses = node.containerd.directory().join("addresses").display().to_string();
    let ipam =
        json!({"type": "host-local", "dataDir": addresses, "ranges": [[{"subnet": "10.213.79.0/24"}]]});
    let network = json!({"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "ptp", "ipam": ipam}]});
    std::fs::write(node.containerd.directory().join("cni/10-test.conflist"), network.to_string()).unwrap();
    let image = program_image(IMAGE);
    let reference = publish_indexed(&registry, &image, "mapped:v1");
    let crictl = Crictl(&node);
    crictl.ok(&["pull", &reference]);
    eventually("the network is ready", Duration::from_secs(20), || {
        let info = crictl.ok(&["info"]);
        let conditions = serde_json::from_str::<Value>(&info).unwrap()["status"]["conditions"].take();
        let network = |condition: &Value| condition["type"] == "NetworkReady" && condition["status"] == true;
        let ready = conditions.as_array().is_some_and(|all| all.iter().any(network));
        if ready { Ok(()) } else { Err(info) }
    });
    let range = json!([{"host_id": 100_000, "container_id": 0, "length": 65536}]);
    let options = json!({"network": 0, "userns_options": {"mode": 0, "uids": range, "gids": range}});
    let script = format!(
        "{SHELL} cat /proc/self/uid_map; {SHELL} stat -c 'owner %u:%g' /data/large; {SHELL} sha256sum /data/large; \
         echo done; {SHELL} sleep 1000"
    );
    let container = json!({"image": {"image": reference}, "command": [SHELL, "sh", "-c", script]});
    let printed = crictl.lines_of("mapped", &options, &container, "done");
    assert!(printed.contains("owner 0:0") && printed.contains("100000"), "{printed}");
    assert!(printed.contains(&digest_of_large(IMAGE)), "{printed}");
}
