use super::*;

const V1: ContainerdVersion = ContainerdVersion::new(1, 6);
const V2: ContainerdVersion = ContainerdVersion::new(2, 3);

fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn load(directory: &tempfile::TempDir, version: ContainerdVersion) -> ContainerdFile {
    ContainerdFile::load(&directory.path().join("config.toml"), version).unwrap()
}

#[test]
fn imports_are_merged_as_each_containerd_merges_them() {
    let main = "version = 2\nimports = [\"d/*.toml\", \"config.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\n\
                max_concurrent_downloads = 5\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"other\"\n";
    let drop_in = "version = 4\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"soci\"\n\
                   [plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"soci\"\n[proxy_plugins.soci]\n";
    let directory = write(&[("config.toml", main), ("d/a.toml", drop_in), ("d/b.txt", "not toml [")]);
    // The whole table is replaced.
    let old = load(&directory, V1);
    assert_eq!(old.cri().snapshotters, ["soci"]);
    assert!(old.plugin(CRI_1).unwrap().get("max_concurrent_downloads").is_none());
    assert_eq!(old.proxies(), ["soci"]);
    // Only the key is.
    let new = load(&directory, V2);
    assert_eq!(new.cri().snapshotters, ["soci"]);
    assert_eq!(new.cri().local_pull, Some("max_concurrent_downloads"));
}

#[test]
fn containerd_2_takes_cri_settings_of_version_2_only_where_a_runtime_is_defined() {
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"soci\"\n\
                disable_snapshot_annotations = false\n";
    let lost = load(&write(&[("config.toml", text)]), V2);
    assert_eq!((lost.cri().snapshotters.len(), lost.dropped_cri.len()), (0, 1));
    let runtime = format!("{text}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n");
    let kept = load(&write(&[("config.toml", &runtime)]), V2);
    assert!(kept.cri().annotations && kept.dropped_cri.is_empty());
    assert_eq!(kept.cri().snapshotters, ["soci"]);
}

#[test]
fn hostile_files_are_errors_that_name_the_file_and_the_line() {
    let directory = write(&[("config.toml", "version = 2\n[[[")]);
    let path = directory.path().join("config.toml");
    let error = ContainerdFile::load(&path, V2).unwrap_err().to_string();
    assert!(error.contains("config.toml, line 2"), "{error}");
    std::fs::write(&path, vec![b'#'; (MAX_FILE + 1) as usize]).unwrap();
    assert!(ContainerdFile::load(&path, V2).unwrap_err().to_string().contains("longer than"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(ContainerdFile::load(&path, V2).unwrap_err().to_string().contains("UTF-8"));
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(ContainerdFile::load(&fifo, V2).unwrap_err().to_string().contains("regular file"));
    assert!(matches!(ContainerdFile::load(&directory.path().join("none"), V2), Err(FileError::Missing(_))));
    // Everything has the wrong type.
    std::fs::write(
        &path,
        "version = \"x\"\nimports = 1\nplugins = 2\nproxy_plugins = [3]\ndisabled_plugins = {}\n",
    )
    .unwrap();
    let odd = ContainerdFile::load(&path, V2).unwrap();
    assert!(odd.proxies().is_empty() && odd.unpacks_for().is_none());
    assert_eq!(odd.cri(), Cri::default());
    // Tables within tables without end.
    std::fs::write(&path, format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000))).unwrap();
    assert!(ContainerdFile::load(&path, V2).is_err());
}

#[test]
fn patterns_match_as_in_a_shell() {
    for (pattern, name, expected) in [
        ("*.toml", "a.toml", true),
        ("*.toml", "a.toml.bak", false),
        ("a?c*", "abcdef", true),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b", "ab-", false),
        ("", "", true),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
    }
}
