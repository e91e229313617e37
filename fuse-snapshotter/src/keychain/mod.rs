//! Registry logins for the daemon, which pulls long after `PullImage` is over and without a person to ask.
//!
//! [`cri`] learns them from kubelet's calls to the image service.

pub mod cri;
