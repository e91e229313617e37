use std::collections::BTreeSet;

use super::*;

/// The layers are unpacked by umoci, which knows nothing of how they were made.
#[test]
fn the_images_have_what_their_description_promises() {
    let Some(workloads) = Workloads::get() else { return };
    let names: Vec<_> = workloads.all().iter().map(Workload::name).collect();
    assert_eq!(names, ["python", "nodejs", "postgresql", "redis", "nginx"]);
    let layers = |workload: &Workload| -> Vec<String> {
        workload.image().layers().iter().map(|layer| layer.digest.clone()).collect()
    };
    let all: BTreeSet<_> = workloads.all().iter().flat_map(layers).collect();
    for workload in workloads.all() {
        let own = layers(workload);
        assert!(own.len() >= 8, "{}: {} layers", workload.name(), own.len());
        assert_eq!(own[..3], layers(&workloads.all()[0])[..3]);
    }
    assert!(all.len() > 3 + 4 * workloads.all().len());

    let tree = workloads.named("redis").expected();
    for gone in workloads.named("redis").gone() {
        assert!(tree.get(gone).is_none(), "{gone}");
    }
    let mode = |path: &str| tree.get(path).unwrap_or_else(|| panic!("{path}")).mode;
    assert_eq!((mode(""), mode("srv/attributes/setuid"), mode("srv/attributes/closed")), (0o751, 0o4755, 0));
    let has = |path: &str, xattr: &str| tree.get(path).unwrap().xattrs.contains_key(xattr.as_bytes());
    assert!(
        has("srv/attributes/capable", "security.capability") && has("usr/bin/ping", "security.capability")
    );
    assert!(
        has("srv/attributes/xattr", "user.origin") && has("srv/attributes/xattr-directory", "user.binary")
    );
    assert_eq!(tree.get("srv/attributes/fine").unwrap().mtime.1, 123_456_789);
    assert_eq!(tree.get("srv/attributes/big-owner").unwrap().uid, 4_000_000);
    assert_eq!(tree.get("srv/random").unwrap().size, 9_000_001);
    assert_eq!(tree.links("srv/links/env"), 2);
    assert!(tree.get(b"srv/names/raw\xffbyte").is_some());
    let renewed = tree.children("srv/lower/renewed");
    assert_eq!(renewed, [b"4".to_vec()]);
}
