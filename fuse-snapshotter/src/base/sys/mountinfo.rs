//! The kernel's tables of mounts, `/proc/PID/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount.
#[derive(Debug, Clone, Copy)]
pub struct MountLine<'a> {
    point: &'a [u8],
    kind: &'a [u8],
    options: &'a [u8],
}

impl<'a> MountLine<'a> {
    /// All mounts of a table, in the order of mounting.
    pub fn all(table: &'a [u8]) -> impl Iterator<Item = Self> {
        table.split(|byte| *byte == b'\n').filter_map(Self::parse)
    }

    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = fields.nth(4)?;
        // Some optional fields, and a dash.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = fields.next()?;
        Some(Self { point, kind, options: fields.nth(1)? })
    }

    /// Where it is mounted, as seen by the process.
    #[must_use]
    pub fn point(&self) -> PathBuf {
        unescape(self.point)
    }

    /// The upper directory of an overlay.
    #[must_use]
    pub fn upper(&self) -> Option<PathBuf> {
        let mut options = self.options.split(|byte| *byte == b',').filter(|_| self.kind == b"overlay");
        options.find_map(|option| option.strip_prefix(b"upperdir=")).map(unescape)
    }
}

/// Blanks and such stand as octal numbers.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn octal_escapes_are_read() {
        let path = |text: &str| unescape(text.as_bytes());
        assert_eq!(path(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(path(r"/a\"), Path::new(r"/a\"));
        assert_eq!(path(r"/a\9990"), Path::new(r"/a\9990"));
    }

    #[test]
    fn a_table_of_mounts_is_read() {
        let table = b"29 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw\n\
            31 29 0:50 / /run/a\\040b rw - overlay overlay rw,lowerdir=/x:/y,upperdir=/r/7/fs,workdir=/r/7/work\n\
            32 29 0:51 / /proc rw - proc proc rw\nnonsense\n";
        let mounts: Vec<_> = MountLine::all(table).map(|mount| (mount.point(), mount.upper())).collect();
        let expected = [("/", None), ("/run/a b", Some(PathBuf::from("/r/7/fs"))), ("/proc", None)];
        assert_eq!(mounts, expected.map(|(point, upper)| (PathBuf::from(point), upper)));
    }
}
