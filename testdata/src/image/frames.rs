//! Zstandard in frames, in the three forms that layers have it.

use std::io::{self, Write};

use super::compress::ZstdForm;

/// Compresses what is written to it in frames.
pub(super) struct Frames<W: Write> {
    out: W,
    encoder: zstd::Encoder<'static, Vec<u8>>,
    level: i32,
    frame: u64,
    form: ZstdForm,
    /// Uncompressed bytes in the current frame.
    filled: u64,
    /// Sizes of the frames that are done: compressed, uncompressed.
    done: Vec<(u64, u64)>,
}

/// A new frame, with a checksum and without its content's size, as tools write that do not know it beforehand.
fn encoder(level: i32) -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl<W: Write> Frames<W> {
    pub(super) fn new(out: W, level: i32, frame: u64, form: ZstdForm) -> Self {
        let encoder = encoder(level).expect("zstd encoder");
        Self { out, encoder, level, frame, form, filled: 0, done: Vec::new() }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        let packed = std::mem::replace(&mut self.encoder, encoder(self.level)?).finish()?;
        self.out.write_all(&packed)?;
        self.done.push((packed.len() as u64, std::mem::take(&mut self.filled)));
        Ok(())
    }

    /// An entry begins.
    pub(super) fn entry(&mut self) -> io::Result<()> {
        if self.form == ZstdForm::Chunked && self.filled > 0 { self.end_frame() } else { Ok(()) }
    }

    pub(super) fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            if self.filled == self.frame {
                self.end_frame()?;
            }
            let left = self.frame - self.filled;
            let (now, later) =
                data.split_at(usize::try_from(left).map_or(data.len(), |left| left.min(data.len())));
            self.encoder.write_all(now)?;
            self.filled += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// Writes a skippable frame of the kind that `nibble` tells.
    fn skippable(&mut self, nibble: u8, data: &[u8]) -> io::Result<()> {
        self.out.write_all(&[0x50 | nibble, 0x2a, 0x4d, 0x18])?;
        self.out.write_all(&(data.len() as u32).to_le_bytes())?;
        self.out.write_all(data)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.filled > 0 || self.done.is_empty() {
            self.end_frame()?;
        }
        match self.form {
            ZstdForm::Plain => {}
            ZstdForm::Seekable => {
                let mut table = Vec::new();
                for (compressed, uncompressed) in &self.done {
                    table.extend((*compressed as u32).to_le_bytes());
                    table.extend((*uncompressed as u32).to_le_bytes());
                }
                table.extend((self.done.len() as u32).to_le_bytes());
                table.push(0);
                table.extend(0x8f92_eab1u32.to_le_bytes());
                self.skippable(0xe, &table)?;
            }
            ZstdForm::Chunked => self.contents()?,
        }
        Ok(self.out)
    }

    /// A table of contents, which is compressed itself, and the footer that says where it is. (That of real tools names
    /// files; here it is the frames.)
    fn contents(&mut self) -> io::Result<()> {
        let json = serde_json::json!({ "version": 1, "frames": self.done }).to_string();
        let packed = zstd::encode_all(json.as_bytes(), self.level)?;
        let offset = self.done.iter().map(|(compressed, _)| compressed).sum::<u64>() + 8;
        self.skippable(0, &packed)?;
        let mut footer = Vec::new();
        // Contents: offset, size, uncompressed size, kind. Then three numbers of a second table, which is not there.
        for number in [offset, packed.len() as u64, json.len() as u64, 1, 0, 0, 0] {
            footer.extend(number.to_le_bytes());
        }
        footer.extend(b"GNUlInUx");
        self.skippable(0, &footer)
    }
}
