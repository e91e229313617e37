//! The configuration as TOML: with every key explained, or as it is in effect.

use std::fmt::Write;

use super::file::{File, KEYS};
use super::keys::Key;

const HEAD: &str = "\
# Configuration of soci-snapshotter-grpc, with the default values.
# Names are those of awslabs/soci-snapshotter; upper and lower case are the same.
# Keys that say \"No effect\" are accepted so that its files work unchanged.
";

/// The default values as a table. Empty only if they could not be written, which a test excludes.
pub(super) fn defaults() -> toml::Table {
    toml::Table::try_from(File::default()).unwrap_or_default()
}

/// The value of a key in a table, unless it stands below a name of the user's.
pub(super) fn lookup<'a>(values: &'a toml::Table, key: &Key) -> Option<&'a toml::Value> {
    let mut table = values;
    for step in key.table.split('.').filter(|step| !step.is_empty()) {
        table = table.get(step)?.as_table()?;
    }
    table.get(key.name)
}

/// What is said about a key, in one line.
pub(super) fn explain(key: &Key) -> String {
    let doc = key.doc;
    match key.no_effect {
        Some(reason) => format!("{doc} No effect: {reason}."),
        None if key.is_own => format!("{doc} Not in awslabs/soci-snapshotter."),
        None => doc.to_owned(),
    }
}

/// See [`Config::default_toml`](super::Config::default_toml).
pub(super) fn default_toml() -> String {
    let defaults = defaults();
    let mut text = HEAD.to_owned();
    let mut table = "";
    for key in KEYS.iter() {
        let value = lookup(&defaults, key);
        // What has no default is an example, commented out.
        let mark = if value.is_some() { "" } else { "# " };
        if key.table != table {
            table = key.table;
            let _ = write!(text, "\n{}\n", heading(table));
        } else {
            text.push('\n');
        }
        let _ = writeln!(text, "# {}", explain(key));
        let shown = value.map_or_else(|| key.example.to_owned(), ToString::to_string);
        let _ = writeln!(text, "{mark}{} = {shown}", key.name);
    }
    text
}

/// The line that begins a table. Tables with names of the user's are examples.
fn heading(table: &str) -> String {
    match table {
        "resolver.host.*.mirrors" => {
            "# Mirrors, for example; hosts.toml files (see registry.config_path) can say more.\n\
             # [[resolver.host.\"registry.example.com\".mirrors]]"
                .to_owned()
        }
        "pull_modes.index.*" => "# [pull_modes.index.\"registry.example.com/app:v1\"]".to_owned(),
        "pull_modes.parallel_pull_unpack.decompress_streams.*" => {
            "# [pull_modes.parallel_pull_unpack.decompress_streams.gzip]".to_owned()
        }
        table => format!("[{table}]"),
    }
}

/// See [`Config::to_toml`](super::Config::to_toml).
pub(super) fn to_toml(file: &File) -> Result<String, toml::ser::Error> {
    toml::to_string(file)
}
