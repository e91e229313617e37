//! `soci-snapshotter-grpc status`.

use std::io::Write;

use anyhow::Context;

use super::args::socket;
use crate::daemon::grpc::ControlClient;
use crate::daemon::status::Status;

/// Asks the daemon at `address` how it is, and prints that.
pub(super) async fn run(address: &str, json: bool) -> anyhow::Result<()> {
    let path = socket(address);
    let mut client = ControlClient::connect(&path.to_string_lossy()).await.with_context(|| {
        format!("no daemon answers at {} (is it running? is --address right?)", path.display())
    })?;
    let text = client.status().await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let status: Status = serde_json::from_str(&text).context("the daemon's answer makes no sense")?;
    let mut output = std::io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut output, &status)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(output))
    } else {
        write!(output, "{status}")
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
