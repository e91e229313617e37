//! Names of servers.

use crate::reference::{api_host, split_port};

/// Whether `host[:port]` is this machine, where plain HTTP is the custom and nobody can listen in.
pub(crate) fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The name that the registry `host` has on the network.
pub(super) fn server_name(host: &str) -> &str {
    api_host(host)
}
