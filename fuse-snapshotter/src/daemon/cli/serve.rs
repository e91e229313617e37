//! The daemon: containerd's snapshotter on a socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use registry::Client;
use soci_index::store::default_root;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Cli, DEFAULT_ADDRESS, USER_NAMESPACE_COMMAND};
use crate::base::metrics::Metrics;
use crate::daemon::config::{Config, MetricsEndpoint, Severity};
use crate::daemon::grpc::{Calls, ControlServer, Listener, SnapshotService, bind};
use crate::daemon::keychain::{KeychainSettings, Keychains, Kubeconfig};
use crate::daemon::metrics_server::Server;
use crate::image::{ContainerdContent, LocalContent};
use crate::snapshotter::pull::ContentOfNamespace;
use crate::snapshotter::{IdMapping, Options, Snapshotter};

/// How long calls that are under way may take when the daemon is told to end. systemd waits as long.
const GRACE: Duration = Duration::from_secs(25);

/// How the daemon is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It will be started again: who looks at trees keeps them.
    Restart,
    /// Everything is unmounted.
    Unmount,
}

/// Checks what can be said before anything is started.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for problem in config.problems() {
        match problem.severity {
            Severity::Warning => tracing::warn!(key = problem.key, "{}", problem.message),
            Severity::Error => errors.push(problem.to_string()),
        }
    }
    anyhow::ensure!(errors.is_empty(), "the configuration cannot work: {}", errors.join("; "));
    Ok(())
}

/// Serves until a signal ends it.
pub(super) async fn run(cli: &Cli, config: &Config) -> anyhow::Result<()> {
    // Before anything is mounted, so that no signal finds it half made.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let root = cli.root.clone().unwrap_or_else(default_root);
    let metrics = Metrics::new();
    let metrics_server = serve_metrics(config, &metrics).await?;
    let (listener, path) = bind(&cli.address, Path::new(DEFAULT_ADDRESS))
        .with_context(|| format!("cannot listen at {}", cli.address))?;
    let _socket = SocketFile(path.clone());
    let keychains = keychains(config, path.as_deref())?;
    let client = Client::new(config.client_config(keychains.credentials()))?;
    let options = options(&root, config, client, metrics)?;
    let opening = tokio::task::spawn_blocking(|| Snapshotter::open(options, Handle::current()));
    let snapshotter = opening.await?.context("cannot start")?;
    let restoring = tokio::spawn(Arc::clone(&snapshotter).restore());
    let cleaning = tokio::spawn(Arc::clone(&snapshotter).keep_clean());

    let stop = CancellationToken::new();
    let calls = Calls::default();
    let mut serving = tokio::spawn(serve(
        (listener, path.clone()),
        Arc::clone(&snapshotter),
        keychains,
        (calls.clone(), stop.clone()),
    ));
    tracing::info!(address = cli.address, root = %root.display(), "soci-snapshotter-grpc successfully started");
    tell(&[sd_notify::NotifyState::Ready]);

    let end = tokio::select! {
        _ = interrupt.recv() => End::Unmount,
        _ = terminate.recv() => End::Restart,
    };
    tracing::info!(?end, "stopping");
    tell(&[sd_notify::NotifyState::Stopping]);
    restoring.abort();
    cleaning.abort();
    if let Some(server) = metrics_server {
        server.abort();
    }
    // Calls that are under way are finished.
    stop.cancel();
    let outcome = tokio::select! {
        outcome = &mut serving => outcome?,
        // Clients that only have a connection open are not waited for.
        () = calls.finished() => Ok(()),
        () = tokio::time::sleep(GRACE) => {
            tracing::warn!(seconds = GRACE.as_secs(), "calls are still under way; ending all the same");
            Ok(())
        }
    };
    serving.abort();
    let leaving = tokio::task::spawn_blocking(move || match end {
        End::Unmount => snapshotter.unmount_all(),
        End::Restart => snapshotter.leave(),
    });
    leaving.await?;
    outcome
}

/// The daemon's socket, which is removed when the daemon ends, however it does.
struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Serves metrics, if that is wanted.
async fn serve_metrics(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(endpoint) = config.metrics() else { return Ok(None) };
    let address = match &endpoint {
        MetricsEndpoint::Tcp(address) => address.clone(),
        MetricsEndpoint::Unix(path) => path.display().to_string(),
    };
    let server = Server::bind(&endpoint).await;
    let server = server.with_context(|| format!("cannot serve metrics at {address} (metrics_address)"))?;
    tracing::info!(address, "serving metrics");
    Ok(Some(tokio::spawn(server.run(Arc::clone(metrics)))))
}

/// Where credentials come from. `own`: the path of the daemon's own socket.
fn keychains(config: &Config, own: Option<&Path>) -> anyhow::Result<Keychains> {
    let cri = config.cri_keychain();
    if let (Some(path), Some(own)) = (&cri, own) {
        anyhow::ensure!(
            path != own,
            "cri_keychain.image_service_path is this daemon's own socket: name containerd's instead"
        );
    }
    let kubeconfig = config
        .kubeconfig_keychain()
        .then(|| Kubeconfig { path: config.kubeconfig_path().map(Path::to_owned) });
    let settings = KeychainSettings { kubeconfig, cri, ..KeychainSettings::default() };
    Keychains::start(settings).context("kubeconfig_keychain.enable_keychain")
}

fn tell(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

async fn serve(
    (listener, _): Listener,
    snapshotter: Arc<Snapshotter>,
    keychains: Keychains,
    (calls, stop): (Calls, CancellationToken),
) -> anyhow::Result<()> {
    let connections = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let mut routes = tonic::service::Routes::builder();
    routes.add_service(SnapshotService::server(Arc::clone(&snapshotter)));
    routes.add_service(ControlServer::server(snapshotter));
    if let Some(cri) = keychains.cri() {
        routes.add_service(cri.service());
        routes.add_service(cri.alpha_service());
    }
    tonic::transport::Server::builder()
        .layer(calls)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
        .context("cannot serve")
}

/// What the snapshotter is made with.
fn options(root: &Path, config: &Config, client: Client, metrics: Arc<Metrics>) -> anyhow::Result<Options> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(Options {
        root: root.to_owned(),
        client,
        content: content_of_containerd(config.containerd_address()),
        user_namespace_program: (own, vec![USER_NAMESPACE_COMMAND.to_owned()]),
        id_mapping: IdMapping::Auto,
        metrics,
        settings: config.settings(),
    })
}

/// What the containerd at a socket has, over one connection for each namespace.
fn content_of_containerd(address: PathBuf) -> ContentOfNamespace {
    let known: Mutex<HashMap<String, Arc<dyn LocalContent>>> = Mutex::default();
    Arc::new(move |namespace: &str| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let content = known
            .entry(namespace.to_owned())
            .or_insert_with(|| Arc::new(ContainerdContent::new(address.clone(), namespace)));
        vec![Arc::clone(content)]
    })
}

/// Enters a new user namespace, says so, and waits for the end of standard input; see `snapshotter::idmap`.
pub(super) fn hold_user_namespace() -> anyhow::Result<()> {
    use std::io::{Read, Write};
    crate::base::sys::enter_user_namespace().context("cannot make a user namespace")?;
    std::io::stdout().write_all(&[1])?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
