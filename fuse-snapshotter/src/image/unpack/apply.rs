//! What each entry of a layer does to the target.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::attributes::{Failure, Warnings, Writer};
use super::error::UnpackError;
use super::error::shown;
use super::options::Options;
use super::place::{self, Place};
use super::sparse::Region;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

pub(super) struct Applier {
    place: Place,
    writer: Writer,
}

impl Applier {
    pub(super) fn new(target: &Path, options: &Options) -> Result<Self, UnpackError> {
        let writer = Writer { ownership: options.ownership, warnings: Warnings::default() };
        Ok(Self { place: Place::open(target, options)?, writer })
    }

    /// Applies an entry, whose data `archive` is at.
    pub(super) fn apply<R: BufRead>(
        &mut self,
        entry: Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let path = place::clean(&entry.name).map_err(|reason| UnpackError::entry(&entry.name, reason))?;
        let failed = |failure: Failure| UnpackError::io(&entry.name, failure.operation, failure.source);
        if let Kind::Unknown(typeflag) = entry.kind {
            let what = format!("skipped an entry of unknown type '{}'", typeflag.escape_ascii());
            self.writer.warnings.warn(&entry.name, &what);
            return Ok(());
        }
        if path.is_empty() && entry.kind != Kind::Directory {
            self.writer.warnings.warn(&entry.name, "skipped an entry in place of the root directory");
            return Ok(());
        }
        let (parent, name) = place::split(&path);
        if name == OPAQUE_MARKER {
            let directory = self.place.parent(&path).map_err(failed)?;
            self.place.mark_opaque(directory.as_fd()).map_err(failed)?;
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            match hidden {
                b"" | b"." | b".." => return Err(UnpackError::entry(&entry.name, "a whiteout of nothing")),
                _ if hidden.starts_with(WHITEOUT_PREFIX) => {}
                _ => {
                    let hidden =
                        if parent.is_empty() { hidden.to_vec() } else { [parent, b"/", hidden].concat() };
                    self.place.add_whiteout(&hidden).map_err(failed)?;
                }
            }
        } else {
            match entry.kind {
                Kind::Directory => self.place.add_directory(&path, entry.attributes).map_err(failed)?,
                Kind::Regular => self.add_file(&path, &entry, archive)?,
                Kind::HardLink => self.add_hard_link(&path, &entry)?,
                Kind::Char if entry.device == (0, 0) => self.place.add_whiteout(&path).map_err(failed)?,
                _ => self.add_special(&path, &entry)?,
            }
        }
        self.place.check_memory()
    }

    /// Writes what was left for last; returns the directories that the layer does not mention itself.
    pub(super) fn finish(mut self) -> Result<Vec<Vec<u8>>, UnpackError> {
        self.place.finish(&mut self.writer)
    }

    fn add_file<R: BufRead>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let failed = |failure: Failure| UnpackError::io(&entry.name, failure.operation, failure.source);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |parent: rustix::fd::BorrowedFd<'_>, name: &[u8]| {
            rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let (file, _) = self.place.replace("create the file", path, create).map_err(failed)?;
        let file = File::from(file);
        let written = |source| UnpackError::io(&entry.name, "write the file", source);
        match &entry.regions {
            None => copy(archive, &file, Region { offset: 0, length: entry.size }, written)?,
            Some(regions) => {
                for region in regions {
                    copy(archive, &file, *region, written)?;
                }
                // A hole at the end.
                file.set_len(entry.size).map_err(written)?;
            }
        }
        self.writer.write_open(path, file.as_fd(), &entry.attributes).map_err(failed)
    }

    fn add_hard_link(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let failed = |source: Errno| UnpackError::HardLink {
            path: shown(&entry.name),
            target: shown(&entry.link_name),
            source: source.into(),
        };
        let target =
            place::clean(&entry.link_name).map_err(|reason| UnpackError::entry(&entry.link_name, reason))?;
        // The parent comes first: making it may replace something on the way to the target.
        let (_, name) = place::split(path);
        let parent = self
            .place
            .parent(path)
            .map_err(|failure| UnpackError::io(&entry.name, failure.operation, failure.source))?;
        let from = self.place.existing_parent(&target).map_err(failed)?;
        let (_, target) = place::split(&target);
        // Without AT_SYMLINK_FOLLOW this links to a link itself.
        let link = || rustix::fs::linkat(&from, target, &parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                if same_file(&from, target, &parent, name).map_err(failed)? {
                    return Ok(());
                }
                self.place
                    .remove(parent.as_fd(), path)
                    .map_err(|failure| UnpackError::io(&entry.name, failure.operation, failure.source))?;
                link().map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    fn add_special(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let failed = |failure: Failure| UnpackError::io(&entry.name, failure.operation, failure.source);
        let mode = Mode::RUSR | Mode::WUSR;
        let made = match entry.kind {
            Kind::Symlink => self.place.replace("make the symbolic link", path, |parent, name| {
                rustix::fs::symlinkat(entry.link_name.as_slice(), parent, name)
            }),
            Kind::Fifo => self.place.replace("make the pipe", path, |parent, name| {
                rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)
            }),
            _ => {
                let device = device(entry.device).ok_or_else(|| {
                    UnpackError::entry(&entry.name, "a device number that the kernel does not have")
                })?;
                let kind =
                    if entry.kind == Kind::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                self.place.replace("make the device", path, |parent, name| {
                    rustix::fs::mknodat(parent, name, kind, mode, device)
                })
            }
        };
        let parent: Rc<OwnedFd> = match made {
            Ok(((), parent)) => parent,
            Err(Failure { source: Errno::PERM, .. })
                if !self.writer.ownership && matches!(entry.kind, Kind::Char | Kind::Block) =>
            {
                self.writer.warnings.warn(&entry.name, "skipped a device, which only root can make");
                return Ok(());
            }
            Err(failure) => return Err(failed(failure)),
        };
        let (_, name) = place::split(path);
        let is_symlink = entry.kind == Kind::Symlink;
        self.writer.write_named(path, (parent.as_fd(), name), is_symlink, &entry.attributes).map_err(failed)
    }
}

/// Copies data of the current entry to a place in a file.
fn copy<R: BufRead>(
    archive: &mut Archive<R>,
    file: &File,
    region: Region,
    written: impl Fn(std::io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let (mut offset, mut left) = (region.offset, region.length);
    while left > 0 {
        let data = archive.data(left)?;
        let length = data.len();
        file.write_all_at(data, offset).map_err(&written)?;
        archive.consume(length);
        offset += length as u64;
        left -= length as u64;
    }
    Ok(())
}

/// Whether two names are links to one file already. Directories cannot be linked, not even to themselves.
fn same_file(a: &OwnedFd, a_name: &[u8], b: &OwnedFd, b_name: &[u8]) -> Result<bool, Errno> {
    let a = rustix::fs::statat(a, a_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(a.st_mode) == FileType::Directory {
        return Err(Errno::PERM);
    }
    let b = rustix::fs::statat(b, b_name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// The kernel has 12 bits of major and 20 of minor numbers; it would cut larger ones, maybe down to 0:0, which is
/// a whiteout.
fn device((major, minor): (i64, i64)) -> Option<u64> {
    let major = u32::try_from(major).ok().filter(|major| *major < 1 << 12)?;
    let minor = u32::try_from(minor).ok().filter(|minor| *minor < 1 << 20)?;
    Some(rustix::fs::makedev(major, minor))
}
