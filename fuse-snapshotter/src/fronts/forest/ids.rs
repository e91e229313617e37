//! Owners for a container's user namespace.
//!
//! They are translated here where the kernel cannot do it: for trees that are served with other owners, and for
//! copies of directories.

use std::borrow::Cow;

/// Owner of files whose owner a mapping does not mention: `nobody`, as the kernel's overflow id.
const UNMAPPED: u32 = 65_534;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// A range of ids in a container and in the host, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// First id in the container, which is the one in the image.
    pub container: u32,
    /// First id in the host.
    pub host: u32,
    /// Number of ids.
    pub size: u32,
}

/// How owners are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// The id in the host, if it has one. As in the kernel, the first range that has the id counts.
fn host(ranges: &[IdRange], id: u32) -> Option<u32> {
    let host = ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container).filter(|offset| *offset < range.size)?;
        Some(range.host.checked_add(offset))
    });
    host.flatten()
}

/// The id in the host, or [`UNMAPPED`].
fn translate(ranges: &[IdRange], id: u32) -> u32 {
    host(ranges, id).unwrap_or(UNMAPPED)
}

impl IdMaps {
    /// The user in the host.
    pub(crate) fn uid(&self, uid: u32) -> u32 {
        translate(&self.uids, uid)
    }

    /// The group in the host.
    pub(crate) fn gid(&self, gid: u32) -> u32 {
        translate(&self.gids, gid)
    }

    /// User and group in the host, if both are mapped.
    pub(crate) fn owner(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        host(&self.uids, uid).zip(host(&self.gids, gid))
    }

    /// The value of an extended attribute in the host: some have ids in them. `None` if it means nothing there.
    pub(crate) fn xattr<'v>(&self, name: &[u8], value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        match name {
            CAPABILITY => self.capability(value),
            ACL_ACCESS | ACL_DEFAULT => Some(self.acl(value)),
            _ => Some(Cow::Borrowed(value)),
        }
    }

    /// File capabilities are granted by the root of a user namespace, and hold in that namespace only. In an image
    /// that is the container's root. Version 2 of the format does not mention the root: it is id 0. In the host id
    /// 0 is the host's root, whose capabilities the processes of a container would not get. So the id of the
    /// container's root is added, which takes version 3 of the format. The kernel does the same for an id-mapped
    /// mount.
    fn capability<'v>(&self, value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        const REVISION: u32 = 0xff00_0000;
        const REVISION_2: u32 = 0x0200_0000;
        const REVISION_3: u32 = 0x0300_0000;
        let Some((magic, rest)) = value.split_first_chunk::<4>() else { return Some(Cow::Borrowed(value)) };
        let magic = u32::from_le_bytes(*magic);
        // Two pairs of 32-bit sets, and the id of the root.
        let (sets, root) = match (magic & REVISION, rest.split_first_chunk::<16>()) {
            (REVISION_2, Some((sets, []))) => (sets, 0),
            (REVISION_3, Some((sets, root))) => match <[u8; 4]>::try_from(root) {
                Ok(root) => (sets, u32::from_le_bytes(root)),
                Err(_) => return Some(Cow::Borrowed(value)),
            },
            // The kernel does not accept it as capabilities.
            _ => return Some(Cow::Borrowed(value)),
        };
        let root = host(&self.uids, root)?;
        let mut translated = Vec::with_capacity(24);
        let revision = if root == 0 { REVISION_2 } else { REVISION_3 };
        translated.extend_from_slice(&(magic & !REVISION | revision).to_le_bytes());
        translated.extend_from_slice(sets);
        if root != 0 {
            translated.extend_from_slice(&root.to_le_bytes());
        }
        Some(Cow::Owned(translated))
    }

    /// Access control lists name users and groups.
    fn acl<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        const VERSION: [u8; 4] = 2u32.to_le_bytes();
        const USER: u16 = 0x02;
        const GROUP: u16 = 0x08;
        let entries = value.strip_prefix(&VERSION).filter(|entries| entries.len().is_multiple_of(8));
        let Some(entries) = entries else { return Cow::Borrowed(value) };
        let mut translated = VERSION.to_vec();
        for entry in entries.chunks_exact(8) {
            let [t0, t1, p0, p1, i0, i1, i2, i3] = *entry else { continue };
            let id = u32::from_le_bytes([i0, i1, i2, i3]);
            let id = match u16::from_le_bytes([t0, t1]) {
                USER => self.uid(id),
                GROUP => self.gid(id),
                _ => id,
            };
            translated.extend_from_slice(&[t0, t1, p0, p1]);
            translated.extend_from_slice(&id.to_le_bytes());
        }
        Cow::Owned(translated)
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

    fn maps() -> IdMaps {
        let range = |host| vec![IdRange { container: 0, host, size: 1000 }];
        IdMaps { uids: range(100_000), gids: range(200_000) }
    }

    /// As `setcap` writes them: everything in `sets` is told from everything else.
    fn capability(magic: u32, root: Option<u32>) -> Vec<u8> {
        let sets = 1..=16;
        let root = root.into_iter().flat_map(u32::to_le_bytes);
        magic.to_le_bytes().into_iter().chain(sets).chain(root).collect()
    }

    #[test]
    fn capabilities_are_those_of_the_containers_root() {
        let translated = |value: &[u8]| maps().xattr(b"security.capability", value).map(Cow::into_owned);
        let two = capability(0x0200_0001, None);
        assert_eq!(translated(&two), Some(capability(0x0300_0001, Some(100_000))));
        let three = capability(0x0300_0000, Some(7));
        assert_eq!(translated(&three), Some(capability(0x0300_0000, Some(100_007))));
        assert_eq!(translated(&capability(0x0300_0000, Some(1000))), None);
        let same = IdRange { container: 0, host: 0, size: 5 };
        let same = IdMaps { uids: vec![same], gids: vec![same] };
        assert_eq!(same.xattr(b"security.capability", &two).as_deref(), Some(&two[..]));
        // What is no capability is the kernel's to refuse.
        for length in 0..two.len() {
            assert_eq!(translated(&two[..length]).as_deref(), Some(&two[..length]));
        }
        assert_eq!(translated(&three[..23]).as_deref(), Some(&three[..23]));
        assert_eq!(maps().xattr(b"user.capability", &two).as_deref(), Some(&two[..]));
    }

    #[test]
    fn lists_name_the_users_of_the_host() {
        let entry = |tag: u16, id: u32| {
            let mut entry = tag.to_le_bytes().to_vec();
            entry.extend([7, 0]);
            entry.extend(id.to_le_bytes());
            entry
        };
        let list = |entries: &[Vec<u8>]| [2u32.to_le_bytes().to_vec(), entries.concat()].concat();
        let given =
            list(&[entry(1, u32::MAX), entry(2, 5), entry(2, 1000), entry(8, 6), entry(32, u32::MAX)]);
        let expected = list(&[
            entry(1, u32::MAX),
            entry(2, 100_005),
            entry(2, UNMAPPED),
            entry(8, 200_006),
            entry(32, u32::MAX),
        ]);
        for name in [ACL_ACCESS, ACL_DEFAULT] {
            assert_eq!(maps().xattr(name, &given).as_deref(), Some(&expected[..]));
            let cut = &given[..given.len() - 1];
            assert_eq!(maps().xattr(name, cut).as_deref(), Some(cut));
        }
    }
}
