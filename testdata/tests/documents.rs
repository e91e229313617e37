//! What the documents point at is there.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken fixture must stop the test")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// All Markdown documents of the project, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for directory in [root(), root().join("docs"), root().join("docs/design")] {
        for file in directory.read_dir().unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 15, "only {} documents", found.len());
    found
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

#[test]
fn source_files_that_documents_name_exist() {
    let mut named = 0;
    let mut missing = Vec::new();
    // Paths without a crate are in the snapshotter's sources.
    let places = [root(), root().join("fuse-snapshotter/src"), root().join("fuse-snapshotter")];
    for (document, text) in documents() {
        for word in prose(&text).split('`').skip(1).step_by(2) {
            if !word.contains('/') || !word.ends_with(".rs") || word.contains([' ', '*', '{', '<']) {
                continue;
            }
            named += 1;
            if !places.iter().any(|place| place.join(word).exists()) {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert!(named > 20, "only {named} paths");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn links_between_documents_lead_to_files_and_headings() {
    let mut links = 0;
    let mut broken = Vec::new();
    for (document, text) in documents() {
        for part in prose(&text).split("](").skip(1) {
            let Some((target, _)) = part.split_once(')') else { continue };
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().expect("a directory").join(path),
            };
            let leads = file.exists()
                && (heading.is_empty() || {
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    headings(&text).contains(&heading.to_owned())
                });
            if !leads {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The names by which headings can be linked to, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).lines().filter(|line| line.starts_with('#')).map(name).collect()
}
