//! Images for the start-up benchmark: a base layer that all share, and one layer with the packages and `/entry`. `torch`
//! is the large one, with a single layer of more than 1 GB.
//!
//! They are built one by one when they are first asked for, and kept in `target/workloads/startup-…` with the unpacked
//! base, so that another image can be made later.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::build::{BASE, blob_of, cache, mirror, run, scratch, work, write_layout};
use super::recipe::{Recipe, SUITE, Step};
use super::{LayerRecord, Record, Workloads};
use crate::digest::sha256;

/// What the names of the cache's directories begin with.
pub(super) const STARTUP: &str = "startup-";

const STEP: Step = Step {
    name: "packages",
    script: r#"
        apt-get -q update
        # shellcheck disable=SC2086
        apt-get -q -y --no-install-recommends install $PACKAGES
        printf '#!/bin/sh\n%s\n' "$ENTRY" > entry
        chmod 755 entry
    "#,
};

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "redis",
        packages: "redis-server",
        entry: "exec redis-server --save '' --daemonize no --bind 127.0.0.1 --dir /tmp",
        ready: "Ready to accept connections",
    },
    Recipe {
        name: "nginx",
        packages: "nginx-light",
        entry: "exec nginx -g 'daemon off; error_log stderr notice;'",
        ready: "start worker process",
    },
    Recipe {
        name: "node",
        packages: "nodejs",
        entry: r#"exec node -e "require('http').createServer((q, r) => r.end('x')).listen(8080, '127.0.0.1', () => console.log('server ready'))""#,
        ready: "server ready",
    },
    Recipe {
        name: "postgres",
        packages: "postgresql-15",
        entry: "exec setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/postgres \
                -D /var/lib/postgresql/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses= \
                -c logging_collector=off -c ssl=off -c unix_socket_directories=/tmp -c external_pid_file= \
                -c dynamic_shared_memory_type=mmap",
        ready: "database system is ready to accept connections",
    },
    Recipe {
        name: "tomcat",
        packages: "openjdk-17-jre-headless tomcat10",
        entry: "export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10\n\
                exec java -cp $CATALINA_HOME/bin/bootstrap.jar:$CATALINA_HOME/bin/tomcat-juli.jar \
                -Dcatalina.home=$CATALINA_HOME -Dcatalina.base=$CATALINA_BASE -Djava.io.tmpdir=/tmp \
                org.apache.catalina.startup.Bootstrap start",
        ready: "Server startup in",
    },
    Recipe {
        name: "torch",
        packages: "python3-torch python3-torchvision",
        entry: r#"exec python3 -c "import torch; print('torch says', torch.ones(3).sum().item(), flush=True)""#,
        ready: "torch says 3.0",
    },
];

/// Finds or builds the images of these names.
pub(super) fn get(names: &[&str], progress: &dyn Fn(&str)) -> Workloads {
    let sources = [include_str!("startup.rs"), include_str!("build.rs"), include_str!("pack.rs")].concat();
    let digest = sha256(sources.as_bytes());
    let name = format!("{STARTUP}{}", &digest["sha256:".len()..][..16]);
    let directory = cache().join(&name);
    let lock = File::create(cache().join("startup.lock")).unwrap();
    lock.lock().unwrap();
    if !directory.join("base.json").exists() {
        // What other recipes made would only pile up.
        for entry in fs::read_dir(cache()).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(STARTUP) {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        progress("the base layer (debootstrap)");
        base(&directory);
    }
    let base: LayerRecord = read(&directory.join("base.json"));
    let records = names.iter().map(|name| {
        let file = directory.join(format!("{name}.json"));
        if !file.exists() {
            progress(&format!("image {name}"));
            let recipe = RECIPES.iter().find(|recipe| recipe.name == *name).unwrap();
            let record = image(recipe, &directory, &base);
            fs::write(&file, serde_json::to_vec_pretty(&record).unwrap()).unwrap();
        }
        read::<Record>(&file)
    });
    let records: Vec<Record> = records.collect();
    // All that there are, not only those that were asked for.
    let there = RECIPES.iter().map(|recipe| directory.join(format!("{}.json", recipe.name)));
    let there: Vec<Record> = there.filter(|file| file.exists()).map(|file| read(&file)).collect();
    let layout = directory.join("layout");
    write_layout(&layout, &there);
    Workloads { all: records.iter().map(|record| record.workload(&layout)).collect(), directory }
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Makes the base's unpacked layer, `layers/0/upper`, and its blob. `base.json` comes last: without it all of this is made
/// again.
fn base(directory: &Path) {
    for name in ["layers/0/upper", "layout/blobs/sha256"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    let arguments = ["-euc", BASE, "sh", &mirror()];
    run(Command::new("sh").args(arguments).env("SUITE", SUITE).current_dir(directory), "base");
    let record = blob_of(&directory.join("layers/0/upper"), directory);
    fs::write(directory.join("base.json"), serde_json::to_vec_pretty(&record).unwrap()).unwrap();
}

/// Makes an image's own layer.
fn image(recipe: &Recipe, directory: &Path, base: &LayerRecord) -> Record {
    // The directories that the base uses are whole; those of a builder that was killed are not.
    let scratch = scratch(&format!("{STARTUP}build-{}", recipe.name));
    for name in ["cache/lists", "cache/archives"] {
        fs::create_dir_all(scratch.path().join(name)).unwrap();
    }
    let layer = scratch.path().join("layer");
    let below = [directory.join("layers/0/upper")];
    work(&STEP, &below, &layer, &scratch.path().join("cache"), Some(recipe));
    let own = blob_of(&layer.join("upper"), directory);
    Record { name: recipe.name.into(), ready: recipe.ready.into(), layers: vec![base.clone(), own] }
}
