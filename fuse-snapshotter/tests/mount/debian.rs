//! A real image: Debian with Python, in a real registry, compared with what umoci unpacks.

use std::path::Path;
use std::process::Command;

use testdata::docker_registry::DockerRegistry;
use testdata::need::{Need, available};
use testdata::walk::{compare, walk};

use crate::can_mount;
use crate::program::{Mount, index};

/// A base layer, a layer with Python, and a small one that removes, replaces and links. Made with the tools that people
/// make images with.
const MAKE: &str = r#"
set -eu
cd "$1"
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\(http[^ ]*\) .*/\2/p' | head -1)
debootstrap --variant=minbase --include=ca-certificates bookworm base "${mirror:-http://deb.debian.org/debian}" >debootstrap.log 2>&1 ||
    { tail -5 debootstrap.log; exit 1; }
rm -rf base/var/cache/apt/archives/*.deb base/dev/*
umoci init --layout image
umoci new --image image:app
umoci unpack --image image:app bundle >/dev/null 2>&1
cp -a base/. bundle/rootfs/
umoci repack --refresh-bundle --image image:app bundle >/dev/null 2>&1

cp /etc/resolv.conf bundle/rootfs/etc/resolv.conf
printf 'deb %s bookworm main\n' "${mirror:-http://deb.debian.org/debian}" > bundle/rootfs/etc/apt/sources.list
printf '#!/bin/sh\nexit 101\n' > bundle/rootfs/usr/sbin/policy-rc.d
chmod 755 bundle/rootfs/usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive chroot bundle/rootfs sh -c '
    apt-get -q update && apt-get -q -y --no-install-recommends install python3 iputils-ping perl libpython3-dev &&
    apt-get clean && rm -rf /var/lib/apt/lists/*' >apt.log 2>&1 || { tail -5 apt.log; exit 1; }
umoci repack --refresh-bundle --image image:app bundle >/dev/null 2>&1

cd bundle/rootfs
rm -rf usr/share/doc/python3.11 usr/share/locale
rm -rf usr/share/man && mkdir -p usr/share/man && echo new > usr/share/man/page
ln -f usr/bin/python3.11 usr/bin/python-linked
echo replaced > etc/motd
setfattr -n user.origin -v test etc/motd
mknod -m 666 opt/null c 1 3
mkfifo opt/pipe
chown 1234:5678 opt/pipe
cd ../..
umoci repack --refresh-bundle --image image:app bundle >/dev/null 2>&1
umoci unpack --image image:app unpacked >/dev/null 2>&1
"#;

fn make(directory: &Path) {
    let output = Command::new("sh").args(["-c", MAKE, "sh"]).arg(directory).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn debian_with_python_is_what_umoci_unpacks() {
    let tools = ["debootstrap", "umoci", "skopeo", "docker-registry"].map(|name| Need::Program(name, name));
    if !can_mount() || !available(&tools) || !available(&[Need::Program("setfattr", "attr")]) {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    make(directory.path());
    let Some(registry) = DockerRegistry::start() else { return };
    let reference =
        registry.copy(&format!("oci:{}:app", directory.path().join("image").display()), "debian:python");
    index(&reference, &[]);
    let unpacked = walk(&directory.path().join("unpacked/rootfs"));
    assert!(unpacked.0.len() > 5000, "only {} files", unpacked.0.len());

    // The two large layers lazily, the small one unpacked on top.
    let mount = Mount::new(&reference, &[]);
    let output = Command::new("chroot")
        .arg(mount.path())
        .args(["python3", "-c", "import json, ssl, sqlite3; print('imported')"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "imported\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    compare(&walk(&mount.path()), &unpacked).unwrap();
    let report = mount.finish();
    let modes: Vec<_> = report["layers"].as_array().unwrap().iter().map(|layer| &layer["mode"]).collect();
    assert_eq!(modes, ["lazy", "lazy", "unpacked"]);

    // All three lazily, as one tree.
    index(&reference, &["--min-layer-size", "0", "--existing-index", "allow"]);
    let mount = Mount::new(&reference, &[]);
    compare(&walk(&mount.path()), &unpacked).unwrap();
    let report = mount.finish();
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["mode"] == "lazy"), "{report}");
}
