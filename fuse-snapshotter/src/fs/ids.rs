//! Owners for a container's user namespace, where the kernel cannot translate them.

/// Owner of what a mapping does not mention: `nobody`, as the kernel's overflow id.
const UNMAPPED: u32 = 65_534;

/// A range of ids in a container and in the host, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container, which is the one in the image.
    pub container: u32,
    /// First id in the host.
    pub host: u32,
    /// Number of ids.
    pub size: u32,
}

/// How owners are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// The id in the host, or [`UNMAPPED`]. As in the kernel, the first range that has the id counts.
fn translate(ranges: &[IdRange], id: u32) -> u32 {
    let host = ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container).filter(|offset| *offset < range.size)?;
        Some(range.host.checked_add(offset))
    });
    host.flatten().unwrap_or(UNMAPPED)
}

impl IdMaps {
    /// The user in the host.
    pub(super) fn uid(&self, uid: u32) -> u32 {
        translate(&self.uids, uid)
    }

    /// The group in the host.
    pub(super) fn gid(&self, gid: u32) -> u32 {
        translate(&self.gids, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_by_range_and_the_rest_is_nobodys() {
        let range = |container, host, size| IdRange { container, host, size };
        let ranges = [range(0, 100_000, 1000), range(5000, 7, 1), range(u32::MAX - 1, u32::MAX - 1, 9)];
        for (id, expected) in [
            (0, 100_000),
            (999, 100_999),
            (1000, UNMAPPED),
            (4999, UNMAPPED),
            (5000, 7),
            (5001, UNMAPPED),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(translate(&ranges, id), expected, "{id}");
        }
        // A host range that would leave 32 bits.
        assert_eq!(translate(&[range(0, u32::MAX, 10)], 1), UNMAPPED);
        assert_eq!(translate(&[], 0), UNMAPPED);
    }
}
