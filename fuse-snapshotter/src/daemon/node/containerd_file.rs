//! The configuration that containerd has: a file, what it imports, and what containerd makes of both.
//!
//! Files are merged as containerd merges them, which differs: 1.x replaces the whole table of a plugin, 2.x merges it key
//! by key. Each file has a version of its own and is migrated by itself. All of it is bounded: a node's files may be
//! anything.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::version::ContainerdVersion;

/// Where containerd's configuration is unless it is told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/containerd/config.toml";

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most files that are read.
const MAX_FILES: usize = 100;
/// Most names of a directory that are compared with a pattern.
const MAX_NAMES: usize = 10_000;

/// CRI's tables, before containerd 2.0 and since.
const CRI_1: &str = "io.containerd.grpc.v1.cri";
const IMAGES_2: &str = "io.containerd.cri.v1.images";
const RUNTIME_2: &str = "io.containerd.cri.v1.runtime";
const TRANSFER: &str = "io.containerd.transfer.v1.local";

/// What containerd is configured to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerdFile {
    /// The main file.
    pub(crate) path: PathBuf,
    /// The version that the main file has; 1 where it says none.
    pub(crate) config_version: i64,
    /// All files together.
    merged: Table,
    containerd: Option<ContainerdVersion>,
    /// Files of version 2 whose settings of CRI containerd 2.x drops.
    pub(crate) dropped_cri: Vec<PathBuf>,
}

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("containerd has no configuration {}", .0.display())]
    Missing(PathBuf),
    #[error("cannot read containerd's configuration {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("containerd's configuration {}, line {line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: usize, reason: String },
}

/// How CRI pulls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cri {
    /// Snapshotters that images are pulled for: CRI's own, and those of runtimes.
    pub(crate) snapshotters: Vec<String>,
    pub(crate) annotations: bool,
    /// What keeps CRI from the transfer service, if anything does.
    pub(crate) local_pull: Option<&'static str>,
    pub(crate) disabled: bool,
}

impl ContainerdFile {
    /// Reads `path` and what it imports, as `containerd` would.
    pub(crate) fn load(path: &Path, containerd: ContainerdVersion) -> Result<Self, FileError> {
        let mut config = Self { path: path.to_owned(), containerd: Some(containerd), ..Self::default() };
        let mut pending = VecDeque::from([path.to_owned()]);
        let mut loaded = HashSet::new();
        while let Some(path) = pending.pop_front() {
            if !loaded.insert(path.clone()) {
                continue;
            }
            if loaded.len() > MAX_FILES {
                let reason = format!("it imports more than {MAX_FILES} files");
                return Err(FileError::Unreadable { path: config.path, reason });
            }
            let mut table = read(&path)?;
            let version = table.get("version").and_then(Value::as_integer).unwrap_or(1);
            if loaded.len() == 1 {
                config.config_version = version;
            }
            if containerd.major >= 2 && version < containerd.config_version() && !migrate(&mut table) {
                config.dropped_cri.push(path.clone());
            }
            let imports = table.get("imports").and_then(Value::as_array).cloned().unwrap_or_default();
            for import in imports.iter().filter_map(Value::as_str) {
                pending.extend(resolve(&path, import));
            }
            merge(&mut config.merged, table, containerd.major >= 2);
        }
        Ok(config)
    }

    /// A snapshotter that others serve.
    pub(crate) fn proxy(&self, name: &str) -> Option<&Table> {
        self.merged.get("proxy_plugins")?.get(name)?.as_table()
    }

    /// The names of all of them.
    pub(crate) fn proxies(&self) -> Vec<&str> {
        let all = self.merged.get("proxy_plugins").and_then(Value::as_table);
        all.into_iter().flat_map(|table| table.keys().map(String::as_str)).collect()
    }

    fn plugin(&self, name: &str) -> Option<&Table> {
        self.merged.get("plugins")?.get(name)?.as_table()
    }

    /// The snapshotters that the transfer service unpacks for, if that is configured.
    pub(crate) fn unpacks_for(&self) -> Option<Vec<&str>> {
        let list = self.plugin(TRANSFER)?.get("unpack_config")?.as_array()?;
        Some(list.iter().filter_map(|entry| entry.get("snapshotter")?.as_str()).collect())
    }

    /// How CRI pulls.
    pub(crate) fn cri(&self) -> Cri {
        let modern = self.containerd.is_some_and(|version| version.major >= 2);
        let empty = Table::new();
        let cri = self.plugin(if modern { IMAGES_2 } else { CRI_1 }).unwrap_or(&empty);
        let images = if modern { Some(cri) } else { cri.get("containerd").and_then(Value::as_table) };
        let images = images.unwrap_or(&empty);
        let runtime = if modern { self.plugin(RUNTIME_2).unwrap_or(&empty) } else { cri };
        let mut snapshotters: Vec<String> = runtimes(runtime)
            .chain(images.get("runtime_platforms").and_then(Value::as_table))
            .flat_map(Table::values)
            .chain([&Value::Table(images.clone())])
            .filter_map(|table| table.get("snapshotter")?.as_str())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        snapshotters.sort();
        snapshotters.dedup();
        let disabled = self.merged.get("disabled_plugins").and_then(Value::as_array);
        let names = [CRI_1, IMAGES_2, "cri"];
        Cri {
            snapshotters,
            annotations: images.get("disable_snapshot_annotations").and_then(Value::as_bool) == Some(false),
            local_pull: local_pull(images),
            disabled: disabled.is_some_and(|all| {
                all.iter().filter_map(Value::as_str).any(|disabled| names.contains(&disabled))
            }),
        }
    }
}

fn runtimes(runtime: &Table) -> impl Iterator<Item = &Table> {
    runtime.get("containerd").and_then(|value| value.get("runtimes")).and_then(Value::as_table).into_iter()
}

/// The key that has CRI pull by itself instead of through the transfer service (containerd 2.1 and later).
fn local_pull(images: &Table) -> Option<&'static str> {
    let on = |key: &str| images.get(key).and_then(Value::as_bool) == Some(true);
    let registry = |key: &str| {
        let table = images.get("registry").and_then(|registry| registry.get(key)).and_then(Value::as_table);
        table.is_some_and(|table| !table.is_empty())
    };
    if on("use_local_image_pull") {
        Some("use_local_image_pull")
    } else if images.get("disable_snapshot_annotations").and_then(Value::as_bool) == Some(false) {
        Some("disable_snapshot_annotations")
    } else if on("discard_unpacked_layers") {
        Some("discard_unpacked_layers")
    } else if ["mirrors", "configs", "auths"].into_iter().any(registry) {
        Some("registry")
    } else if images.get("max_concurrent_downloads").and_then(Value::as_integer).is_some_and(|n| n != 3) {
        Some("max_concurrent_downloads")
    } else if on("image_pull_with_sync_fs") {
        Some("image_pull_with_sync_fs")
    } else {
        None
    }
}

fn read(path: &Path) -> Result<Table, FileError> {
    let unreadable = |reason: String| FileError::Unreadable { path: path.to_owned(), reason };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(FileError::Missing(path.to_owned()));
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    // A pipe would never end.
    if !metadata.is_file() {
        return Err(unreadable("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable("it is longer than 1 MiB".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        FileError::Malformed { path: path.to_owned(), line, reason: error.message().to_owned() }
    })
}

/// Moves what a file of an older version says of CRI to where containerd 2.x has it. False if containerd loses some of it:
/// it takes over the snapshotter only from files that define a runtime.
fn migrate(table: &mut Table) -> bool {
    let Some(plugins) = table.get_mut("plugins").and_then(Value::as_table_mut) else { return true };
    let Some(Value::Table(old)) = plugins.remove(CRI_1) else { return true };
    let mut new = Table::new();
    for key in ["registry", "max_concurrent_downloads", "image_pull_with_sync_fs"] {
        new.extend(old.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let containerd = old.get("containerd").and_then(Value::as_table);
    let keys = ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];
    let wanted = containerd.is_some_and(|table| keys.iter().any(|key| table.contains_key(*key)));
    let taken = containerd.is_some_and(|table| table.contains_key("runtimes"));
    if let Some(containerd) = containerd.filter(|_| taken) {
        for key in keys {
            new.extend(containerd.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let mut runtime = Table::new();
        runtime.insert("containerd".to_owned(), Value::Table(containerd.clone()));
        add(plugins, RUNTIME_2, runtime);
    }
    add(plugins, IMAGES_2, new);
    taken || !wanted
}

fn add(plugins: &mut Table, name: &str, keys: Table) {
    let entry = plugins.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new()));
    if let Some(table) = entry.as_table_mut() {
        table.extend(keys);
    }
}

/// Merges `from` into `to`; `deep` as containerd 2.x does. The parser bounds how deep tables go.
fn merge(to: &mut Table, from: Table, deep: bool) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Table(to)), Value::Table(from)) if key == "plugins" && deep => deep_merge(to, from),
            (Some(Value::Table(to)), Value::Table(from)) => to.extend(from),
            (Some(Value::Array(to)), Value::Array(from)) => to.extend(from),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

fn deep_merge(to: &mut Table, from: Table) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Table(to)), Value::Table(from)) => deep_merge(to, from),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

/// The files that an import names: relative to the importing file, with `*` and `?` in any part.
fn resolve(parent: &Path, import: &str) -> Vec<PathBuf> {
    let base = parent.parent().unwrap_or(Path::new("/"));
    let mut found = vec![PathBuf::new()];
    for component in base.join(import).components() {
        let name = component.as_os_str().to_string_lossy();
        found = match component {
            Component::Normal(_) if name.contains(['*', '?']) => {
                found.iter().flat_map(|directory| matching(directory, &name)).take(MAX_FILES).collect()
            }
            _ => found.into_iter().map(|directory| directory.join(component)).collect(),
        };
    }
    found
}

fn matching(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(MAX_NAMES);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter(|name| matches(pattern.as_bytes(), name.as_bytes())).collect();
    found.sort();
    found.into_iter().map(|name| directory.join(name)).collect()
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `*` takes one byte more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
