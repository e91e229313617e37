//! What mapping ids takes, and the work for each container.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::kernel::{UserNamespaces, WhyNotMapped};
use crate::base::lock::lock;

/// How the layers of containers in user namespaces get their owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdMapping {
    /// From the kernel, by id-mapped mounts; as with [`IdMapping::Copy`] where it cannot.
    #[default]
    Auto,
    /// Without the kernel's help: lazy layers are served with other owners, and all else is copied.
    Copy,
}

/// What mapping ids takes.
#[derive(Debug)]
pub(in crate::snapshotter) struct IdMapper {
    pub(super) how: IdMapping,
    pub(super) namespaces: UserNamespaces,
    /// Why overlayfs does not take id-mapped directories, if so, once that was tried.
    pub(super) not_stackable: OnceLock<Option<WhyNotMapped>>,
    /// By the container's snapshot.
    jobs: Mutex<HashMap<u64, Weak<Job>>>,
    /// Held while numbers of layers are given out or forgotten.
    pub(super) numbering: Mutex<()>,
}

/// The work for one container.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Whoever works for the container holds this, so that nothing is mounted or copied twice. A request that its
    /// client gave up goes on with it.
    pub(super) single: Arc<tokio::sync::Mutex<()>>,
    /// The container is gone.
    pub(super) abandoned: AtomicBool,
}

impl Job {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl IdMapper {
    /// `program`: see [`UserNamespaces::new`].
    pub(in crate::snapshotter) fn new(how: IdMapping, program: (PathBuf, Vec<String>)) -> Self {
        Self {
            how,
            namespaces: UserNamespaces::new(program),
            not_stackable: OnceLock::new(),
            jobs: Mutex::default(),
            numbering: Mutex::default(),
        }
    }

    pub(super) fn job(&self, container: u64) -> Arc<Job> {
        let mut jobs = lock(&self.jobs);
        jobs.retain(|_, job| job.strong_count() > 0);
        if let Some(job) = jobs.get(&container).and_then(Weak::upgrade) {
            return job;
        }
        let job = Arc::new(Job::default());
        jobs.insert(container, Arc::downgrade(&job));
        job
    }
}
