//! Keeping up with the cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Error, Event, watcher};
use kube::{Api, Client};

use super::kubeconfig::{self, Fingerprint, Found};
use super::logins::{self, Kind, Logins, Secret};
use super::settings::KubeconfigSettings;
use super::shared::Shared;

/// A secret has up to 1 MiB.
const PAGE: u32 = 50;
/// Before the secrets are listed again, so that a server that forgets at once is not kept busy.
const RESTART: Duration = Duration::from_secs(1);

/// Never ends. Each change of the kubeconfig, or of a certificate that it names, starts anew; what was read before
/// stays until the new list is complete.
pub(crate) async fn run(settings: KubeconfigSettings, shared: Arc<Shared>) {
    let mut said = String::new();
    let mut failing = [false; 2];
    loop {
        let candidates = kubeconfig::candidates(settings.path.as_deref());
        let (fingerprint, found) = kubeconfig::read(&candidates);
        let connected = match found {
            Found::Missing => {
                say_once(&mut said, "there is no kubeconfig yet; waiting for it".to_owned(), |what| {
                    tracing::info!(files = ?candidates, "{what}");
                });
                None
            }
            Found::Broken(problem) => {
                say_once(&mut said, problem.to_string(), |error| {
                    tracing::warn!(error, "the kubeconfig cannot be used")
                });
                None
            }
            Found::Config(config) => match kubeconfig::connect(*config).await {
                Ok(client) => Some(client),
                Err(problem) => {
                    say_once(&mut said, problem.to_string(), |error| {
                        tracing::warn!(error, "the kubeconfig cannot be used")
                    });
                    None
                }
            },
        };
        if let Some(client) = connected {
            said.clear();
            let [config_json, cfg] = &mut failing;
            tokio::select! {
                () = changed(&settings, &fingerprint) => {
                    tracing::info!("the kubeconfig has changed");
                    continue;
                }
                () = follow(&client, Kind::DockerConfigJson, &shared, config_json) => {}
                () = follow(&client, Kind::DockerCfg, &shared, cfg) => {}
            }
        }
        shared.settle(&Kind::ALL);
        // A plugin that failed, or whose answer was refused, may do better the next time; so a change is not waited for.
        tokio::time::sleep(settings.poll).await;
    }
}

fn say_once(said: &mut String, what: String, say: impl FnOnce(&str)) {
    if *said != what {
        say(&what);
        *said = what;
    }
}

async fn changed(settings: &KubeconfigSettings, since: &Fingerprint) {
    loop {
        tokio::time::sleep(settings.poll).await;
        // A file that is gone for a moment, or for good, is no reason to end a connection that works.
        match kubeconfig::read(&kubeconfig::candidates(settings.path.as_deref())) {
            (now, Found::Config(_)) if now != *since => return,
            _ => {}
        }
    }
}

/// Lists and watches one kind of secret. The watcher sees to resuming and to growing waits after errors, and to starting
/// over when the server says within the stream that it has forgotten the version (410). Ends when the client's login is
/// refused: the client library runs an exec plugin again only at the time that it named.
async fn follow(client: &Client, kind: Kind, shared: &Shared, failing: &mut bool) {
    let selection = format!("type={}", kind.secret_type());
    let config = watcher::Config::default().fields(&selection).page_size(PAGE);
    loop {
        let events = watcher(Api::<Secret>::all(client.clone()), config.clone()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listing = Logins::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // `Init` comes before anything was asked for, and says nothing about the server.
                    *failing &= matches!(event, Event::Init);
                    apply(event, kind, &mut listing, shared);
                }
                // Said by the answer's status, the watcher would ask for the same version for ever.
                Err(Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410 => break,
                Err(error) => {
                    shared.settle(&[kind]);
                    report(&error, kind, failing);
                    if is_unauthorized(&error) {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(RESTART).await;
    }
}

fn apply(event: Event<Secret>, kind: Kind, listing: &mut Logins, shared: &Shared) {
    match event {
        Event::Init => *listing = Logins::default(),
        Event::InitApply(secret) => {
            let (name, entry) = logins::read(kind, &secret);
            listing.set(kind, name, entry);
        }
        Event::InitDone => {
            tracing::debug!(kind = kind.secret_type(), count = listing.len(), "image pull logins listed");
            shared.logins().replace(kind, std::mem::take(listing));
            shared.settle(&[kind]);
        }
        Event::Apply(secret) => {
            let (name, entry) = logins::read(kind, &secret);
            shared.logins().set(kind, name, entry);
        }
        Event::Delete(secret) => shared.logins().set(kind, logins::name(&secret), None),
    }
}

fn is_unauthorized(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 401,
        _ => false,
    }
}

fn report(error: &Error, kind: Kind, failing: &mut bool) {
    let text = match error {
        // The normal end of a long watch.
        Error::WatchError(status) if status.code == 410 => return,
        Error::WatchError(status) => format!("the API server answered {} {}", status.code, status.reason),
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            kubeconfig::describe_client(error)
        }
        Error::NoResourceVersion => error.to_string(),
    };
    let kind = kind.secret_type();
    if std::mem::replace(failing, true) {
        tracing::debug!(error = text, kind, "image pull logins still cannot be read from Kubernetes");
    } else {
        tracing::warn!(error = text, kind, "image pull logins cannot be read from Kubernetes; trying again");
    }
}
