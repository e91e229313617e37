//! `soci-snapshotter-grpc doctor`.

use std::path::absolute;

use fuse_snapshotter::daemon::config::Config;
use fuse_snapshotter::daemon::node::doctor::{Options, examine};
use soci_index::store::default_root;

use crate::args::{Cli, DoctorArgs};
use crate::config::containerd_address;
use crate::daemon::socket;

/// Looks at the node and prints what was found. Whether all is well.
pub(crate) async fn run(cli: &Cli, args: DoctorArgs) -> anyhow::Result<bool> {
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
    crate::print(text.as_bytes())?;
    Ok(report.worst().is_none())
}
