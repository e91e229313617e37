//! What all rooms use: locks, durable files, text for people, system calls, metrics.

pub(crate) mod durable;
pub(crate) mod lock;
pub mod metrics;
pub mod sys;
pub(crate) mod text;
