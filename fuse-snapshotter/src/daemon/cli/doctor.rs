//! `soci-snapshotter-grpc doctor`.

use std::path::absolute;

use soci_index::store::default_root;

use super::args::{Cli, DoctorArgs, socket};
use super::config::containerd_address;
use super::output::print;
use crate::daemon::config::Config;
use crate::daemon::node::doctor::{Options, examine};

/// Looks at the node and prints what was found. Whether all is well.
pub(super) async fn run(cli: &Cli, args: DoctorArgs) -> anyhow::Result<bool> {
    let config = Config::load(cli.config.as_deref());
    let usual = Config::default();
    let address =
        containerd_address(&args.containerd, config.as_ref().map_or(&usual, |loaded| &loaded.config));
    let options = Options {
        socket: absolute(socket(&cli.address))?,
        root: absolute(cli.root.clone().unwrap_or_else(default_root))?,
        config,
        containerd_address: address,
        containerd_config: args.containerd_config.map(absolute).transpose()?,
        containerd_version: args.containerd_version,
        snapshotter: args.snapshotter,
        images: args.images,
    };
    let report = examine(options).await;
    let text = if args.json { format!("{:#}\n", report.to_json()) } else { report.to_string() };
    print(text.as_bytes())?;
    Ok(report.worst().is_none())
}
