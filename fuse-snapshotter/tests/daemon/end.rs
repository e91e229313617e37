//! Ending.

use std::io::Read;

use rustix::process::Signal;
use testdata::need::{Need, available};
use testdata::registry::TestRegistry;
use tonic::Code;

use crate::process::{Home, eventually};
use crate::serve::{Pull, publish};

#[test]
fn clients_that_only_have_a_connection_open_are_not_waited_for() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = home.start();
        // One that says nothing at all, and one that has made calls.
        let mut silent = daemon.connect();
        let pull = Pull::connect(&home.path("s"));
        pull.list();
        daemon.stop(signal);
        // Whatever it was sent, it is over.
        let _ = silent.read_to_end(&mut Vec::new());
        assert!(!home.path("s").exists());
    }
}

#[test]
fn a_signal_while_it_starts_ends_it() {
    if !available(&[Need::Root]) {
        return;
    }
    let home = Home::new();
    let mut command = home.program();
    command.arg("--address").arg(home.path("s"));
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut child = command.stderr(log).spawn().unwrap();
    eventually("the socket is there", || home.path("s").exists().then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!home.path("s").exists());
    assert!(home.mounts().is_empty());
    home.start().stop(Signal::TERM);
}

#[test]
fn calls_under_way_are_finished_and_trees_stay_mounted() {
    if !available(&[Need::Root, Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let registry = TestRegistry::builder().start_blocking();
    let image = publish(&home, &registry);
    let mut daemon = home.start();
    // Slow enough that the signal comes first.
    registry.inject(testdata::registry::Fault::always(testdata::registry::Action::Stall(
        std::time::Duration::from_millis(400),
    )));
    registry.clear_requests();
    let pull = Pull::connect(&home.path("s"));
    let call = pull.prepare_later(&registry, &image);
    eventually("the call is under way", || (!registry.requests().is_empty()).then_some(()));
    daemon.signal(Signal::TERM);
    let status = pull.wait(call).unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    assert_eq!(daemon.wait().code(), Some(0));
    registry.clear_faults();
    // In use: whoever looks at it will look again.
    let mut daemon = home.start();
    Pull::connect(&home.path("s")).view(&image);
    let mounted = home.mounts();
    assert_eq!(mounted.len(), 2, "{mounted:?}");
    daemon.stop(Signal::TERM);
    assert_eq!(home.mounts(), mounted);
    let mut daemon = home.start();
    eventually("it is mounted again", || (home.mounts().len() == 2).then_some(()));
    daemon.stop(Signal::INT);
    assert!(home.mounts().is_empty());
}
