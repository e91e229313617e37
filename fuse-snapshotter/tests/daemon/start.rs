//! Starting, and not starting.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;
use testdata::need::{Need, available};

use crate::process::{Home, eventually};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .map(|found| found.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[test]
fn a_socket_and_a_root_have_one_daemon() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let mut daemon = home.start();
    assert!(home.fail(&home.path("s")).contains("another daemon listens there"));
    let other = home.path("other");
    let said = home.fail(&other);
    assert!(said.contains("is in use: another soci-snapshotter-grpc runs with this root"), "{said}");
    assert!(!other.exists());
    // Neither has disturbed the first one.
    drop(daemon.connect());
    daemon.stop(Signal::TERM);
    assert!(!home.path("s").exists());
    // A socket that a process left behind is replaced; a file that is none is not.
    drop(UnixListener::bind(home.path("s")).unwrap());
    home.start().stop(Signal::INT);
    fs::write(home.path("s"), "somebody's").unwrap();
    assert!(home.fail(&home.path("s")).contains("there is a file that is no socket"));
    assert_eq!(fs::read_to_string(home.path("s")).unwrap(), "somebody's");
}

#[test]
fn the_state_of_the_reference_is_recognised_and_left_alone() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let snapshot = home.path("root/snapshotter/snapshots/7/fs");
    fs::create_dir_all(&snapshot).unwrap();
    let database = home.path("root/snapshotter/metadata.db");
    for name in ["root/artifacts.db", "root/metadata.db", "root/snapshotter/metadata.db"] {
        fs::write(home.path(name), name).unwrap();
    }
    let said = home.fail(&home.path("s"));
    assert!(said.contains("awslabs/soci-snapshotter") && said.contains("To migrate"), "{said}");
    assert!(!home.path("s").exists());
    assert_eq!(names(&home.path("root")), ["artifacts.db", "metadata.db", "snapshotter"]);
    assert_eq!(names(&home.path("root/snapshotter")), ["metadata.db", "snapshots"]);
    assert!(snapshot.is_dir());
    // What is in nobody's way is left as it is.
    fs::rename(&database, home.path("away.db")).unwrap();
    home.start().stop(Signal::TERM);
    assert_eq!(fs::read_to_string(home.path("root/artifacts.db")).unwrap(), "root/artifacts.db");
    let found = home.lines().into_iter().filter(|line| {
        line["msg"].as_str().is_some_and(|text| text.starts_with("awslabs/soci-snapshotter has been here"))
    });
    assert_eq!(found.count(), 2);
}

#[test]
fn a_root_that_overlayfs_cannot_use_is_refused() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(home.path(name)).unwrap();
    }
    // Upper directories cannot be on an overlay themselves.
    let path = |name: &str| home.path(name).display().to_string();
    let data = format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
    let data = std::ffi::CString::new(data).unwrap();
    mount("overlay", home.path("root"), "overlay", MountFlags::empty(), Some(data.as_c_str())).unwrap();
    let said = home.fail(&home.path("s"));
    assert!(said.contains("cannot mount overlayfs there"), "{said}");
    assert!(said.contains("skip_check_snapshotter_supported"), "{said}");
    assert_eq!(names(&home.path("root/snapshotter")), ["snapshots", "snapshots.redb"]);
    home.configure("skip_check_snapshotter_supported = true");
    home.start().stop(Signal::TERM);
}

#[test]
fn a_metrics_address_that_is_taken_is_an_error() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    home.configure(&format!("metrics_address = \"{address}\""));
    let said = home.fail(&home.path("s"));
    assert!(said.contains(&format!("cannot serve metrics at {address} (metrics_address): ")), "{said}");
    assert!(!home.path("s").exists());
    home.configure(&format!("metrics_address = \"{address}\"\nno_prometheus = true"));
    home.start().stop(Signal::TERM);
}

/// As systemd does: the socket as descriptor 3, and the process id in the environment.
#[test]
fn a_socket_can_be_handed_over() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let listener = UnixListener::bind(home.path("s")).unwrap();
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
    let start = || {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_soci-snapshotter-grpc"), "--address", "fd://"]);
        home.prepare(&mut command);
        command
            .env("LISTEN_PID", "")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())));
        home.run(command)
    };
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = start();
        let mut status = home.program();
        status.arg("--address").arg(home.path("s")).args(["status", "--json"]);
        let output = status.stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        daemon.stop(signal);
        // It is systemd's, which keeps what comes until the daemon is back.
        UnixStream::connect(home.path("s")).unwrap();
    }
}

#[test]
fn the_service_manager_is_told() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path("notify")).unwrap();
    manager.set_nonblocking(true).unwrap();
    let told = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).trim().to_owned())
    };
    let mut command = home.program();
    command.arg("--address").arg(home.path("s")).env("NOTIFY_SOCKET", home.path("notify"));
    let mut daemon = home.run(command);
    assert_eq!(eventually("ready", told), "READY=1");
    daemon.stop(Signal::TERM);
    assert_eq!(eventually("stopping", told), "STOPPING=1");
}
