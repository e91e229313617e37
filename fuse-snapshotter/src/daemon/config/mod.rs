//! `config.toml`: the daemon's configuration.
//!
//! A file of awslabs/soci-snapshotter works unchanged. What it says that is not known, or does nothing here, is
//! reported instead of being passed over in silence ([`Note`]); values that cannot be are errors which say what can.
//! What is well-formed but cannot work on this machine is found at start-up by [`Config::problems`].
//!
//! | module | subject |
//! |---|---|
//! | `file`, `tables` | the keys: name, default, documentation, check, and where the value goes |
//! | `keys`, `table` | what a key is, and how it is declared |
//! | `check` | from a text to raw values |
//! | `notes` | what is to be said about a file that can be used |
//! | `configuration` | the configuration in effect: [`Config`] |
//! | `settings`, `hosts`, `values` | what the daemon sees: [`Settings`](crate::snapshotter::Settings), [`registry::ClientConfig`] |
//! | `problems` | what cannot work |
//! | `render` | `config default` and `config dump` |

mod check;
mod configuration;
mod file;
mod hosts;
mod keys;
mod notes;
mod problems;
mod render;
mod settings;
mod size;
pub(crate) mod sockets;
mod table;
mod tables;
mod values;

#[cfg(test)]
mod tests;

pub use configuration::{Config, ConfigError, DEFAULT_PATH, Loaded};
pub use notes::{Note, NoteKind};
pub use problems::{Problem, Severity};
pub use settings::{ContentStore, MetricsEndpoint};
