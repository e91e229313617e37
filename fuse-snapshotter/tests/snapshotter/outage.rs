//! Registries that die.

use std::time::Duration;

use testdata::registry::{Action, Fault, Outage, TestRegistry};

use crate::container::Container;
use crate::daemon::index;
use crate::fallback::{assert_runs, image};
use crate::node::{Node, Pull};

#[test]
fn a_registry_that_dies_during_the_pull_is_a_clear_error_and_no_lasting_one() {
    for how in [Pull::Cri, Pull::Soci] {
        let registry = TestRegistry::builder().start_blocking();
        let Some(node) = Node::with("[http]\nMaxRetries = 1\nMaxWaitMsec = 200\n") else { return };
        let image = image();
        image.put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        index(&reference, &["--min-layer-size", "0"]);
        // From the first zTOC or layer on, nothing but errors.
        let gone = Action::Status(503, Vec::new(), bytes::Bytes::new());
        registry.inject(Fault::always(gone).path("/blobs/"));
        let error = node.try_pull(how, &reference).expect_err("the registry is dead");
        assert!(error.contains("503") || error.contains("nvailable"), "{error}");
        registry.clear_faults();
        node.pull(how, &reference);
        let modes = node.daemon.modes(&reference);
        assert!(modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
        assert_runs(&node, how, &reference, &image);
    }
}

#[test]
fn reads_wait_for_the_registry_and_go_on() {
    for outage in [Outage::Refuse, Outage::Silent] {
        let registry = TestRegistry::builder().start_blocking();
        let Some(node) = Node::with("[background_fetch]\ndisable = true\n") else { return };
        let image = image();
        image.put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        index(&reference, &["--min-layer-size", "0", "--span-size", "262144"]);
        node.pull(Pull::Cri, &reference);
        let script =
            "cd /data; cat 0 > /dev/null; echo begun; sleep 2; sha256sum 7; echo ready; exec sleep 1000";
        let program = ["/bin/sh", "-c", script];
        let mut container = Container::with(&node, Pull::Cri.namespace(), &reference, &[], &program);
        container.wait_for("begun", Duration::from_secs(60));
        registry.set_outage(outage);
        std::thread::sleep(Duration::from_secs(5));
        registry.set_outage(Outage::None);
        let digest = image.layers()[1].entries[8].content().unwrap().digest();
        container.wait_for(digest.trim_start_matches("sha256:"), Duration::from_secs(120));
        container.wait_for("ready", Duration::from_secs(60));
    }
}

/// Longer than `mount_timeout_sec`, which does not count silence.
#[test]
fn a_pull_waits_for_a_silent_registry_and_goes_on() {
    for how in [Pull::Cri, Pull::Soci] {
        let registry = TestRegistry::builder().start_blocking();
        let Some(node) = Node::with("mount_timeout_sec = 5\n") else { return };
        let image = image();
        image.put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        index(&reference, &["--min-layer-size", "0"]);
        registry.clear_requests();
        // So slow that there is a moment to act between the first request of the daemon and the zTOCs.
        registry.set_latency(Duration::from_millis(500));
        std::thread::scope(|scope| {
            let pulling = scope.spawn(|| node.try_pull(how, &reference));
            let probed = || registry.requests().iter().any(|request| request.range == Some((0, 1)));
            while !probed() && !pulling.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            registry.set_outage(Outage::Silent);
            std::thread::sleep(Duration::from_secs(30));
            assert!(!pulling.is_finished(), "{:?}", pulling.join());
            registry.set_outage(Outage::None);
            pulling.join().unwrap().unwrap();
        });
        let modes = node.daemon.modes(&reference);
        assert!(modes.iter().all(|(mode, _)| mode == "lazy"), "{modes:?}");
        registry.set_latency(Duration::ZERO);
        assert_runs(&node, how, &reference, &image);
    }
}
