//! Two zTOCs of one layer, compared by what they mean.

use ztoc::{EntryRef, Ztoc};

/// Differences that are told; the first ones say enough.
pub(super) const MAX_PROBLEMS: usize = 5;

/// What `claimed` says otherwise than `actual`, which was built from the layer: sizes and entries. Checkpoints may lie
/// elsewhere.
pub(super) fn differences(claimed: &Ztoc, actual: &Ztoc) -> Vec<String> {
    let mut problems = Vec::new();
    let sizes = |ztoc: &Ztoc| (ztoc.compressed_size(), ztoc.uncompressed_size(), ztoc.spans().compression());
    if sizes(claimed) != sizes(actual) {
        problems.push(format!(
            "it is for {:?} of {} bytes, {} uncompressed; the layer is {:?} of {} bytes, {} uncompressed",
            claimed.spans().compression(),
            claimed.compressed_size(),
            claimed.uncompressed_size(),
            actual.spans().compression(),
            actual.compressed_size(),
            actual.uncompressed_size()
        ));
    }
    if claimed.len() != actual.len() {
        problems.push(format!("it has {} entries, the layer {}", claimed.len(), actual.len()));
    }
    for (index, (claimed, actual)) in claimed.entries().zip(actual.entries()).enumerate() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        if let Some(field) = different_field(&claimed, &actual) {
            let name = crate::text::excerpt(&String::from_utf8_lossy(actual.name));
            problems.push(format!("entry {index} ({name}) has another {field} in the layer"));
        }
    }
    problems
}

/// The first field in which two entries differ. Times are compared as times: their text depends on a builder's time zone.
fn different_field(claimed: &EntryRef<'_>, actual: &EntryRef<'_>) -> Option<&'static str> {
    let records = |entry: &EntryRef<'_>| {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> =
            entry.pax.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        records.sort();
        records
    };
    let fields = [
        (claimed.name == actual.name, "name"),
        (claimed.kind == actual.kind, "type"),
        (claimed.offset == actual.offset, "offset"),
        (claimed.size == actual.size, "size"),
        (claimed.link_name == actual.link_name, "link target"),
        (claimed.mode == actual.mode, "mode"),
        (claimed.uid == actual.uid && claimed.gid == actual.gid, "owner"),
        (claimed.uname == actual.uname && claimed.gname == actual.gname, "owner's name"),
        (claimed.mtime() == actual.mtime(), "modification time"),
        (claimed.devmajor == actual.devmajor && claimed.devminor == actual.devminor, "device number"),
    ];
    let different = fields.into_iter().find(|(equal, _)| !equal).map(|(_, field)| field);
    different.or_else(|| (records(claimed) != records(actual)).then_some("set of PAX records"))
}
