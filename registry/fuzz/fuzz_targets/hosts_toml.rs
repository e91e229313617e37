//! A `hosts.toml` of anybody: it makes servers, or is an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::fuzzing::hosts_toml;
use testdata::seeds;

fn seeds() -> Vec<&'static str> {
    vec![
        "server = \"https://registry.example\"\ndial_timeout = \"5\"\n",
        "[host.\"https://mirror.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"mirror.crt\"\n  \
         client = [[\"client.cert\", \"client.key\"]]\n  skip_verify = false\n  override_path = true\n  \
         dial_timeout = \"1m2.5s\"\n[host.\"https://mirror.example:5000\".header]\n  \
         x-one = \"1\"\n  x-two = [\"2\", \"3\"]\n",
        "server = \"registry.example/path\"\nca = [\"a.crt\", \"b.crt\"]\nclient = \"both.pem\"\ncapabilities = [\"push\"]\n\
         [host.\"http://127.0.0.1:5000/v2\"]\ndial_timeout = \"500ms\"\nunknown = 1\n",
    ]
}

fuzz_target!(init: seeds::write_if_asked(seeds), |text: &str| match hosts_toml(text) {
    Ok(found) => {
        for server in found.mirrors.iter().chain([&found.server]) {
            assert!(server.connect_timeout.is_none_or(|timeout| !timeout.is_zero()), "there is time to connect");
        }
        assert!(found.mirrors.iter().all(|mirror| mirror.url.is_some()));
    }
    Err(error) => assert!(error.to_string().len() < 64 * 1024, "a message is no longer than what it is about"),
});
