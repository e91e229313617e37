//! Whether a daemon answers, and what it says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::containerd::Facts;
use super::report::{Report, Subject};
use crate::daemon::config::sockets::try_connect;
use crate::daemon::grpc::ControlClient;
use crate::daemon::status::Status;

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why no daemon answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("there is no such socket")]
    NoSocket,
    #[error("nobody listens there")]
    Refused,
    #[error("permission denied; run this as root")]
    Denied,
    #[error("{0}")]
    Socket(Errno),
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: tonic::transport::Error },
    #[error("what listens there is not soci-snapshotter-grpc of this project")]
    OtherProgram,
    #[error("{}", .0.message())]
    Failed(Box<tonic::Status>),
    #[error("its answer makes no sense")]
    Nonsense(#[source] serde_json::Error),
    #[error("no answer for {} s; does the service start?", PATIENCE.as_secs())]
    Silent,
}

impl From<Errno> for NoAnswer {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::NoSocket,
            Errno::CONNREFUSED => Self::Refused,
            Errno::ACCESS => Self::Denied,
            other => Self::Socket(other),
        }
    }
}

/// The state of the daemon at a socket, or why there is none.
pub(super) async fn ask(socket: &Path) -> Result<Status, NoAnswer> {
    try_connect(socket)?;
    let asking = async {
        let mut client = ControlClient::connect(&socket.to_string_lossy())
            .await
            .map_err(|source| NoAnswer::Connect { socket: socket.to_owned(), source })?;
        let json = client.status().await.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => NoAnswer::OtherProgram,
            _ => NoAnswer::Failed(Box::new(status)),
        })?;
        serde_json::from_str(&json).map_err(NoAnswer::Nonsense)
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(NoAnswer::Silent))
}

/// `containerd` may know another socket, at which the daemon is after all.
pub(super) fn judge(
    state: &Result<Status, NoAnswer>,
    socket: &Path,
    containerd: &Facts,
    snapshotter: &str,
    report: &mut Report,
) {
    let shown = socket.display();
    let status = match state {
        Ok(status) => status,
        Err(reason) => {
            let message = format!("the daemon is not running: no daemon answers at {shown}: {reason}");
            let elsewhere =
                containerd.socket(snapshotter).filter(|other| other != socket && try_connect(other).is_ok());
            let advice = match elsewhere {
                Some(other) => format!(
                    "Something listens at {}, which is what containerd uses; if that is the daemon, give --address {0}.",
                    other.display()
                ),
                None => {
                    "Start it: `systemctl enable --now soci-snapshotter.socket soci-snapshotter.service`. \
                         `journalctl -u soci-snapshotter.service` says why it ended."
                        .to_owned()
                }
            };
            report.problem(Subject::Daemon, "daemon-not-running", message).advise(advice);
            return;
        }
    };
    let message =
        format!("soci-snapshotter-grpc {} answers at {shown}, process {}", status.version, status.pid);
    report.ok(Subject::Daemon, "daemon", message);
    if let Some(obstacle) = &status.obstacle {
        let message = format!("nothing can be read lazily: {obstacle}");
        report.problem(Subject::Daemon, "daemon-obstacle", message).advise(
            "Images are fetched and unpacked by the daemon until it is restarted without this obstacle.",
        );
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        let message = format!(
            "the daemon that runs is {}, this program is {}",
            status.version,
            env!("CARGO_PKG_VERSION")
        );
        report.note(Subject::Daemon, "daemon-other-version", message).advise(
            "An upgrade takes effect with a restart of the daemon, which running containers with lazy layers do not \
             survive.",
        );
    }
    if !status.kernel_lacks.is_empty() {
        let message = format!(
            "reading works without these of the kernel, but slower: {}",
            status.kernel_lacks.join(", ")
        );
        report.note(Subject::Daemon, "daemon-kernel-lacks", message);
    }
}
