//! What of a program or library in ELF form is read at its start.
//!
//! The kernel reads its headers. The dynamic linker reads the table of what it needs (`PT_DYNAMIC`), the tables of
//! names in which it looks up symbols, and the relocations, and it writes to what they relocate, which is in the
//! writable segments. All offsets come from the image: a file that makes no sense is expected to do nothing.

use std::ops::Range;

use object::Endianness;
use object::elf::{
    DT_GNU_HASH, DT_HASH, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_RPATH, DT_RUNPATH,
    DT_STRSZ, DT_STRTAB, DT_SYMTAB, FileHeader32, FileHeader64, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use object::pod::slice_from_all_bytes;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// Bytes at the start of a file in which the headers are looked for.
pub(super) const HEAD: u64 = 64 << 10;

/// Bytes at the end of a program or library that are read at its start.
pub(super) const END: u64 = 64 << 10;

/// Longest dynamic section, in bytes.
const MAX_DYNAMIC: u64 = 256 << 10;

/// Longest name of a library, or list of directories, in bytes.
const MAX_NAME: u64 = 1024;

/// Longest piece that is expected because it is relocated or holds symbols, in bytes.
const MAX_PIECE: u64 = 32 << 20;

/// Pieces of one file that are expected, at most. Real ones have half a dozen.
const MAX_RANGES: usize = 16;

/// Libraries of one file, at most.
const MAX_NEEDED: usize = 128;

/// A program or a library.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// What is read of it.
    pub(super) ranges: Vec<Range<u64>>,
    /// Code, most of which is read once it runs.
    pub(super) code: Vec<Range<u64>>,
    /// The dynamic linker.
    pub(super) interpreter: Option<Vec<u8>>,
    /// Names of libraries.
    pub(super) needed: Vec<Vec<u8>>,
    /// Where it wants them to be looked for first.
    pub(super) search: Vec<Vec<u8>>,
}

impl Program {
    /// Reads a file of `size` bytes which begins with `head`; `None` if it is no ELF file.
    /// `read` reads more of it.
    pub(super) async fn read<R: Future<Output = Option<Vec<u8>>>>(
        head: &[u8],
        size: u64,
        read: impl Fn(Range<u64>) -> R,
    ) -> Option<Self> {
        // 1 and 2 stand for 32 and 64 bits.
        match head.get(..5)? {
            [0x7f, b'E', b'L', b'F', 1] => of_class::<FileHeader32<Endianness>, R>(head, size, read).await,
            [0x7f, b'E', b'L', b'F', 2] => of_class::<FileHeader64<Endianness>, R>(head, size, read).await,
            _ => None,
        }
    }
}

/// A part of the file that is mapped.
struct Segment {
    address: u64,
    file: Range<u64>,
}

/// What of the dynamic section matters here.
#[derive(Default)]
struct Dynamic {
    needed: Vec<u64>,
    search: Vec<u64>,
    strings: (u64, u64),
    /// Where tables of symbols begin, and relocations are, by address.
    symbols: Vec<u64>,
    relocations: [(u64, u64); 2],
}

async fn of_class<Elf: FileHeader<Endian = Endianness>, R: Future<Output = Option<Vec<u8>>>>(
    head: &[u8],
    size: u64,
    read: impl Fn(Range<u64>) -> R,
) -> Option<Program> {
    let mut program = Program::default();
    program.expect(0..HEAD.min(size));
    let mut segments = Vec::new();
    let mut section = 0..0;
    {
        let header = Elf::parse(head).ok()?;
        let endian = header.endian().ok()?;
        for segment in header.program_headers(endian, head).ok()? {
            let start: u64 = segment.p_offset(endian).into();
            let length: u64 = segment.p_filesz(endian).into();
            let file = start.min(size)..start.saturating_add(length).min(size);
            match segment.p_type(endian) {
                PT_LOAD => {
                    if segment.p_flags(endian) & PF_W != 0 {
                        program.expect(file.clone());
                    } else if segment.p_flags(endian) & PF_X != 0
                        && !file.is_empty()
                        && program.code.len() < MAX_RANGES
                    {
                        program.code.push(file.clone());
                    }
                    segments.push(Segment { address: segment.p_vaddr(endian).into(), file });
                }
                PT_DYNAMIC if file.end - file.start <= MAX_DYNAMIC => section = file,
                PT_INTERP => {
                    let path = segment.interpreter(endian, head).ok().flatten();
                    program.interpreter = path.filter(|path| path.starts_with(b"/")).map(<[u8]>::to_vec);
                }
                _ => {}
            }
        }
    }
    if section.is_empty() {
        return Some(program);
    }
    let Some(bytes) = read(section).await else { return Some(program) };
    let endian = Elf::parse(head).ok()?.endian().ok()?;
    let dynamic = dynamic::<Elf>(&bytes, endian);
    let place = |address: u64| {
        segments.iter().find_map(|segment| {
            let at = address.checked_sub(segment.address)?;
            let start = segment.file.start.checked_add(at)?;
            (start < segment.file.end).then_some((start, segment.file.end))
        })
    };
    for (address, length) in dynamic.relocations {
        if let Some((start, end)) = place(address) {
            program.expect(start..start.saturating_add(length).min(end));
        }
    }
    let Some((start, end)) = place(dynamic.strings.0) else { return Some(program) };
    let strings = start..start.saturating_add(dynamic.strings.1).min(end);
    // Hashes, symbols and their names lie together in front of the relocations.
    let first = dynamic.symbols.iter().filter_map(|address| place(*address)).map(|(start, _)| start).min();
    program.expect(first.unwrap_or(strings.start).min(strings.start)..strings.end);
    // Each by itself: the names of a large C++ library have megabytes, and lie anywhere.
    let text = async |offset: u64| {
        let start = strings.start.checked_add(offset)?;
        let mut text = read(start..start.saturating_add(MAX_NAME).min(strings.end)).await?;
        let length = text.iter().position(|byte| *byte == 0)?;
        text.truncate(length);
        (length > 0).then_some(text)
    };
    for offset in dynamic.needed {
        program.needed.extend(text(offset).await);
    }
    for offset in dynamic.search {
        let list = text(offset).await.unwrap_or_default();
        program.search.extend(list.split(|byte| *byte == b':').map(<[u8]>::to_vec));
    }
    Some(program)
}

impl Program {
    fn expect(&mut self, range: Range<u64>) {
        if !range.is_empty() && range.end - range.start <= MAX_PIECE && self.ranges.len() < MAX_RANGES {
            self.ranges.push(range);
        }
    }
}

fn dynamic<Elf: FileHeader<Endian = Endianness>>(bytes: &[u8], endian: Endianness) -> Dynamic {
    let whole = bytes.len() - bytes.len() % size_of::<Elf::Dyn>();
    let Ok(entries) = slice_from_all_bytes::<Elf::Dyn>(&bytes[..whole]) else { return Dynamic::default() };
    let mut found = Dynamic::default();
    for entry in entries {
        let value: u64 = entry.d_val(endian).into();
        match entry.tag(endian) {
            // The end.
            0 => break,
            DT_NEEDED if found.needed.len() < MAX_NEEDED => found.needed.push(value),
            DT_RPATH | DT_RUNPATH if found.search.len() < 2 => found.search.push(value),
            DT_STRTAB => found.strings.0 = value,
            DT_STRSZ => found.strings.1 = value,
            DT_SYMTAB | DT_GNU_HASH | DT_HASH => found.symbols.push(value),
            DT_RELA => found.relocations[0].0 = value,
            DT_RELASZ => found.relocations[0].1 = value,
            DT_JMPREL => found.relocations[1].0 = value,
            DT_PLTRELSZ => found.relocations[1].1 = value,
            _ => {}
        }
    }
    found
}
