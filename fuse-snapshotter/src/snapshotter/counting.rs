//! What trees need to be counted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::Digest;

use crate::base::metrics::Metrics;

/// What trees need to be counted.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) metrics: Arc<Metrics>,
    /// How long after the first mount of an image its operations are logged.
    pub(super) wait: Duration,
    /// Images whose operations were logged, or will be.
    pub(super) logged: Mutex<HashSet<Digest>>,
}

impl Counting {
    pub(super) fn new(metrics: Arc<Metrics>, wait: Duration) -> Self {
        Self { metrics, wait, logged: Mutex::default() }
    }
}
