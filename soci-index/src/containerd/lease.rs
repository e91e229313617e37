//! Leases: what is written under one is not collected until the lease ends.

use std::time::Duration;

use containerd_api::services::leases::v1 as api;
use containerd_api::services::leases::v1::leases_client::LeasesClient;

use super::connection::{Containerd, Endpoint, PATIENCE, call};
use super::error::ContainerdError;

/// When containerd forgets a lease that nobody ended: its own clients take a day.
const EXPIRES: Duration = Duration::from_secs(24 * 3600);
/// How long a containerd that went away is waited for, so that no lease stays. systemd starts it again after 5 s.
const RESTART: Duration = Duration::from_secs(8);
/// How often to look whether it is back.
const PAUSE: Duration = Duration::from_millis(250);
/// How long ending one may take when there is no time left.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A lease. [`Lease::release`] ends it; one that is dropped ends too, so that cancelled work leaves none behind.
#[derive(Debug)]
pub struct Lease {
    id: String,
    containerd: Containerd,
    open: bool,
}

impl Containerd {
    /// Begins a lease that containerd ends after a day, should this process not live to do so.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn lease(&self) -> Result<Lease, ContainerdError> {
        let expires = jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::try_from(EXPIRES).unwrap_or(jiff::SignedDuration::ZERO))
            .unwrap_or(jiff::Timestamp::MAX);
        let id = format!("soci-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let labels = [("containerd.io/gc.expire".to_owned(), expires.to_string())];
        let request = api::CreateRequest { id: id.clone(), labels: labels.into() };
        call(
            "create a lease",
            Some(PATIENCE),
            LeasesClient::new(self.channel()).create(self.request(request)),
        )
        .await?;
        let value = id.parse().map_err(|_| ContainerdError::Invalid(format!("invalid lease {id:?}")))?;
        let containerd = Self { lease: Some(value), ..self.clone() };
        Ok(Lease { id, containerd, open: true })
    }

    async fn delete_lease(&self, id: &str) -> Result<(), ContainerdError> {
        let request = api::DeleteRequest { id: id.to_owned(), sync: false };
        let mut client = LeasesClient::new(self.channel());
        call("end a lease", Some(LAST_WORDS), client.delete(self.request(request))).await?;
        Ok(())
    }
}

impl Lease {
    /// The connection whose requests are under this lease.
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Takes a snapshot that is there already under the lease. Content is taken by opening a writer for it.
    ///
    /// # Errors
    /// When it is not there, or containerd does not answer.
    pub async fn add_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), ContainerdError> {
        let resource = api::Resource { id: key.to_owned(), r#type: format!("snapshots/{snapshotter}") };
        let request = api::AddResourceRequest { id: self.id.clone(), resource: Some(resource) };
        let mut client = LeasesClient::new(self.containerd.channel());
        call("lease a snapshot", Some(PATIENCE), client.add_resource(self.containerd.request(request)))
            .await?;
        Ok(())
    }

    /// Ends the lease. If containerd refuses, it does it after a day; if it is gone, it is waited for until it has been
    /// started again.
    ///
    /// # Errors
    /// When containerd went away and does not come back: what was done under the lease may not have been kept.
    pub async fn release(mut self) -> Result<(), ContainerdError> {
        let back = tokio::time::Instant::now() + RESTART;
        let mut ended = self.containerd.delete_lease(&self.id).await;
        while ended.as_ref().is_err_and(ContainerdError::is_gone) && tokio::time::Instant::now() < back {
            tokio::time::sleep(PAUSE).await;
            ended = self.containerd.delete_lease(&self.id).await;
        }
        // Not before: a release that is cancelled has not happened.
        self.open = false;
        match ended {
            Err(error) if error.is_gone() => Err(error),
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%error, lease = self.id, "the lease stays for a day");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Lease {
    /// The runtime may be about to end, so this is done on a thread of its own, and waited for.
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (endpoint, id) = (self.containerd.endpoint().clone(), std::mem::take(&mut self.id));
        let thread = std::thread::Builder::new().name("lease".into()).spawn(move || end(&endpoint, &id));
        if let Ok(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn end(endpoint: &Endpoint, id: &str) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let ended = runtime.block_on(async {
        tokio::time::timeout(LAST_WORDS, async { endpoint.connect().await?.delete_lease(id).await }).await
    });
    if !matches!(ended, Ok(Ok(()))) {
        tracing::warn!(lease = id, "the lease stays for a day");
    }
}
