//! References as users, containerd and labels give them: what is read is written and read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::{Digest, Reference, Repository, TagOrDigest};
use testdata::seeds;

fn seeds() -> Vec<String> {
    let digest = Digest::of(b"");
    [
        "redis",
        "redis:7",
        "library/redis",
        "localhost:5000/app:v1",
        "registry.example.com:443/team/app_one/two-three:1.0",
        "[::1]:5000/app",
        "ghcr.io/a__b/c.d/e---f:latest",
        "docker.io/library/redis:7@",
        "https://registry.example/app",
    ]
    .map(|text| if text.ends_with('@') { format!("{text}{digest}") } else { text.to_owned() })
    .into()
}

/// Both become parts of URLs and of file names.
fn check(repository: &Repository) {
    let (host, name) = (repository.host(), repository.name());
    assert!(host.len() <= 255 && name.len() <= 255);
    assert!(!host.contains(['/', '@', '?', '#', '%', ' ']) && !host.starts_with(['.', '-']));
    assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains("..")));
    assert!(
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte))
    );
    assert!(Repository::new(host, name).is_ok_and(|again| again == *repository));
}

fuzz_target!(init: seeds::write_if_asked(seeds), |text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        check(reference.repository());
        let written = reference.to_string();
        let again: Reference = written.parse().expect("a reference is read as it is written");
        assert_eq!(again, reference, "{written}");
        assert_eq!(again.tag_or_digest(), reference.tag_or_digest());
    }
    if let Ok(which) = text.parse::<TagOrDigest>() {
        assert_eq!(which.to_string().parse::<TagOrDigest>().expect("a tag is read as it is written"), which);
    }
    if let Some((host, name)) = text.split_once('/')
        && let Ok(repository) = Repository::new(host, name)
    {
        check(&repository);
    }
});
