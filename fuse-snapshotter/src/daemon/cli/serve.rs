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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::args::{Cli, DEFAULT_ADDRESS, USER_NAMESPACE_COMMAND};
use crate::base::metrics::Metrics;
use crate::daemon::config::{Config, ContentStore, MetricsEndpoint, ParallelPull, Severity};
use crate::daemon::grpc::{Calls, ControlServer, Listener, SnapshotService, bind};
use crate::daemon::keychain::{KeychainSettings, Keychains, Kubeconfig};
use crate::daemon::metrics_server::Server;
use crate::image::{ContainerdContent, LocalContent, OpenOptions};
use crate::snapshotter::{IdMapping, Options, Snapshotter};

/// Requests for layer contents that may be under way at once. Latency is what costs, so there are more than a fast link
/// needs; a registry is not hammered by that many.
const CONNECTIONS: usize = 8;

/// What stands for no limit.
const UNLIMITED: usize = Semaphore::MAX_PERMITS;

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

/// Layers that may be fetched and unpacked at the same time: for each image, and altogether. Fetching and unpacking are one
/// stream, so the lower limit of the two holds.
fn parallel_unpacks(parallel: &ParallelPull) -> (usize, usize) {
    let lower = |a: Option<usize>, b: Option<usize>| a.unwrap_or(UNLIMITED).min(b.unwrap_or(UNLIMITED));
    (
        lower(parallel.downloads_per_image, parallel.unpacks_per_image),
        lower(parallel.downloads, parallel.unpacks),
    )
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

fn options(root: &Path, config: &Config, client: Client, metrics: Arc<Metrics>) -> anyhow::Result<Options> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let address = config.containerd_address();
    // One connection for each namespace.
    let known: Mutex<HashMap<String, Arc<dyn LocalContent>>> = Mutex::default();
    let content = move |namespace: &str| -> Vec<Arc<dyn LocalContent>> {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let content = known
            .entry(namespace.to_owned())
            .or_insert_with(|| Arc::new(ContainerdContent::new(address.clone(), namespace)));
        vec![Arc::clone(content)]
    };
    let modes = config.pull_modes();
    let parallel = config.parallel_pull();
    let (parallel_unpacks, all_parallel_unpacks) = parallel_unpacks(&parallel);
    let artifacts_in = match config.content_store() {
        ContentStore::Soci => None,
        ContentStore::Containerd { address } => Some(address),
    };
    Ok(Options {
        root: root.to_owned(),
        check_overlay: config.check_supported(),
        client,
        cache_size: config.cache_size(),
        connections: CONNECTIONS,
        layers: OpenOptions { background: config.background_fetch(), keep_cache: config.keep_cache() },
        fuse_threads: config.fuse_threads(),
        mount_timeout: config.mount_timeout(),
        min_layer_size: config.min_layer_size(),
        max_ztoc_percent: config.max_ztoc_percent(),
        v1: modes.soci_v1,
        v2: modes.soci_v2,
        chosen_indexes: config.chosen_indexes(),
        always_unpack: parallel.always,
        unpack_without_index: parallel.always || parallel.as_fallback,
        parallel_unpacks,
        all_parallel_unpacks,
        parallel_layers: config.layers_ahead().unwrap_or(UNLIMITED),
        artifacts_in,
        content: Arc::new(content),
        user_namespace_program: (own, vec![USER_NAMESPACE_COMMAND.to_owned()]),
        metrics,
        fuse_metrics_wait: config.fuse_metrics_wait(),
        prefetch: config.prefetch(),
        id_mapping: IdMapping::Auto,
    })
}

/// Enters a new user namespace, says so, and waits for the end of standard input; see `snapshots::idmap`.
pub(super) fn hold_user_namespace() -> anyhow::Result<()> {
    use std::io::{Read, Write};
    crate::base::sys::enter_user_namespace().context("cannot make a user namespace")?;
    std::io::stdout().write_all(&[1])?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_of_fetching_and_unpacking_holds() {
        let limits = |downloads, downloads_per_image, unpacks, unpacks_per_image| {
            parallel_unpacks(&ParallelPull {
                always: true,
                as_fallback: false,
                downloads,
                downloads_per_image,
                unpacks,
                unpacks_per_image,
            })
        };
        assert_eq!(limits(None, None, None, None), (UNLIMITED, UNLIMITED));
        assert_eq!(limits(Some(9), Some(3), None, None), (3, 9));
        assert_eq!(limits(Some(9), Some(3), Some(7), Some(4)), (3, 7));
        assert_eq!(parallel_unpacks(&Config::default().parallel_pull()), (3, UNLIMITED));
        // A semaphore takes it.
        assert_eq!(Semaphore::new(UNLIMITED).available_permits(), UNLIMITED);
    }
}
