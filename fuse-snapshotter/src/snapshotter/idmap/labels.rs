//! The mapping that a container's labels ask for.

use crate::fronts::forest::{IdMaps, IdRange};
use crate::snapshotter::error::SnapshotError;
use crate::snapshotter::labels;
use crate::snapshotter::store::Labels;

/// Most ranges of a mapping; the kernel's own limit.
const MAX_RANGES: usize = 340;

/// The mapping that a snapshot's labels ask for. One without the other is a mistake.
pub(super) fn mapping(given: &Labels) -> Result<Option<IdMaps>, SnapshotError> {
    match (given.get(labels::UID_MAPPING), given.get(labels::GID_MAPPING)) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => Ok(Some(IdMaps {
            uids: parse(labels::UID_MAPPING, uids)?,
            gids: parse(labels::GID_MAPPING, gids)?,
        })),
        _ => Err(SnapshotError::Invalid(format!(
            "labels {} and {} go together",
            labels::UID_MAPPING,
            labels::GID_MAPPING
        ))),
    }
}

/// The owner that a container with these labels sees as `uid` and `gid`.
pub(in crate::snapshotter) fn mapped_owner(
    given: &Labels,
    uid: u32,
    gid: u32,
) -> Result<(u32, u32), SnapshotError> {
    let Some(ids) = mapping(given)? else { return Ok((uid, gid)) };
    ids.owner(uid, gid).ok_or_else(|| {
        SnapshotError::Invalid(format!("the root directory belongs to {uid}:{gid}, which is not mapped"))
    })
}

fn parse(label: &str, text: &str) -> Result<Vec<IdRange>, SnapshotError> {
    let invalid = |reason: &str| SnapshotError::Invalid(format!("label {label}={text:?}: {reason}"));
    let mut ranges = Vec::new();
    for range in text.split(',') {
        let mut numbers = range.split(':').map(|number| number.trim().parse::<u32>());
        let (Some(Ok(container)), Some(Ok(host)), Some(Ok(size)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(invalid("a range is CONTAINER:HOST:SIZE"));
        };
        if size == 0 || container.checked_add(size - 1).is_none() || host.checked_add(size - 1).is_none() {
            return Err(invalid("a range is empty or ends beyond the largest id"));
        }
        if ranges.len() == MAX_RANGES {
            return Err(invalid("too many ranges"));
        }
        ranges.push(IdRange { container, host, size });
    }
    // The kernel refuses such a mapping, so it must not work without the kernel.
    if overlap(&ranges, |range| range.container) || overlap(&ranges, |range| range.host) {
        return Err(invalid("ranges overlap"));
    }
    Ok(ranges)
}

fn overlap(ranges: &[IdRange], first: impl Fn(&IdRange) -> u32) -> bool {
    let mut sides: Vec<_> = ranges.iter().map(|range| (first(range), range.size)).collect();
    sides.sort_unstable();
    sides.windows(2).any(|pair| match pair {
        [(before, size), (after, _)] => after - before < *size,
        _ => false,
    })
}

/// A mapping as a name.
pub(super) fn name(ids: &IdMaps) -> String {
    let table = |ranges: &[IdRange]| {
        let ranges = ranges.iter().map(|range| format!("{}:{}:{}", range.container, range.host, range.size));
        ranges.collect::<Vec<_>>().join(",")
    };
    format!("{} {}", table(&ids.uids), table(&ids.gids))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    fn labels(uids: &str, gids: &str) -> Labels {
        Labels::from([
            (super::labels::UID_MAPPING.to_owned(), uids.to_owned()),
            (super::labels::GID_MAPPING.to_owned(), gids.to_owned()),
        ])
    }

    #[test]
    fn owners_are_mapped() {
        let labels = labels("0:100000:1000,1000:500000:2", "0:7:1");
        assert_eq!(mapped_owner(&labels, 0, 0).unwrap(), (100_000, 7));
        assert_eq!(mapped_owner(&labels, 1001, 0).unwrap(), (500_001, 7));
        assert!(mapped_owner(&labels, 1002, 0).is_err());
        assert!(mapped_owner(&labels, 0, 1).is_err());
        assert_eq!(mapped_owner(&Labels::new(), 5, 6).unwrap(), (5, 6));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "0:1", "0:1:2:3", "a:b:c", "0:0:0", "0:4294967295:2", "-1:0:1", "0:1:2,"] {
            assert!(mapping(&labels(text, "0:0:1")).is_err(), "{text}");
        }
        assert!(mapping(&Labels::from([(super::labels::UID_MAPPING.into(), "0:0:1".into())])).is_err());
        let many = |count: u32| (0..count).map(|n| format!("{n}:{n}:1")).collect::<Vec<_>>().join(",");
        assert!(mapping(&labels(&many(340), "0:0:1")).is_ok());
        assert!(mapping(&labels(&many(341), "0:0:1")).is_err());
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for text in ["0:0:10,9:100:1", "0:100:10,10:109:1", "5:0:1,5:9:1"] {
            assert!(mapping(&labels(text, "0:0:1")).is_err(), "{text}");
        }
        for text in ["10:100:5,0:0:10", "0:10:10,10:0:10,4294967295:4294967295:1"] {
            assert!(mapping(&labels(text, "0:0:1")).is_ok(), "{text}");
        }
    }

    #[test]
    fn mappings_have_different_names() {
        let name = |uids, gids| name(&mapping(&labels(uids, gids)).unwrap().unwrap());
        assert_eq!(name("0:1:2, 5:6:7", "0:0:1"), "0:1:2,5:6:7 0:0:1");
        assert_ne!(name("0:1:2", "0:0:1"), name("0:0:1", "0:1:2"));
    }
}
