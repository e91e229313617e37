//! How layers are compressed.

use std::io::{self, BufRead, BufReader, Read};

use super::error::UnpackError;

/// Compressed bytes are read in pieces of this size.
const INPUT_BUFFER: usize = 128 * 1024;
/// As many bytes as show what a layer is: a tar archive has its mark at the end of its first header.
const MAGIC: usize = 512;

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerFormat {
    /// A tar archive as it is.
    Tar,
    /// Compressed with gzip, in any number of members.
    Gzip,
    /// Compressed with Zstandard, in any number of frames, with windows of up to 128 MiB.
    Zstd,
}

impl LayerFormat {
    /// The format of a layer that begins with these bytes, of which the first four count. What is neither gzip
    /// nor Zstandard is taken for a tar archive, as containerd does.
    #[must_use]
    pub fn sniff(first: &[u8]) -> Self {
        match ztoc::Compression::sniff(first) {
            ztoc::Compression::Gzip => Self::Gzip,
            ztoc::Compression::Zstd => Self::Zstd,
            ztoc::Compression::Uncompressed => Self::Tar,
        }
    }

    fn compression(self) -> ztoc::Compression {
        match self {
            Self::Tar => ztoc::Compression::Uncompressed,
            Self::Gzip => ztoc::Compression::Gzip,
            Self::Zstd => ztoc::Compression::Zstd,
        }
    }

    /// The format that an OCI or Docker media type names, `None` if it names no layer that can be unpacked.
    /// Parameters are ignored.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let suffix = [
            "application/vnd.oci.image.layer.v1.",
            "application/vnd.oci.image.layer.nondistributable.v1.",
            "application/vnd.docker.image.rootfs.diff.",
            "application/vnd.docker.image.rootfs.foreign.diff.",
        ]
        .iter()
        .find_map(|prefix| essence.strip_prefix(prefix))?;
        match suffix {
            "tar" => Some(Self::Tar),
            "tar+gzip" | "tar.gzip" => Some(Self::Gzip),
            "tar+zstd" | "tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The uncompressed bytes of a layer.
pub(super) enum Source<R: Read> {
    Tar(Input<R>),
    Gzip(Box<Members<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

/// The layer as it is stored: the bytes that were looked at, and the rest.
type Input<R> = io::Chain<io::Cursor<Vec<u8>>, BufReader<R>>;

/// Opens a layer, and tells its format if it is not given.
pub(super) fn open<R: Read>(reader: R, format: Option<LayerFormat>) -> Result<Source<R>, UnpackError> {
    let error = |source| UnpackError::Read { uncompressed: 0, source };
    let mut reader = BufReader::with_capacity(INPUT_BUFFER, reader);
    let mut first = Vec::new();
    reader.by_ref().take(MAGIC as u64).read_to_end(&mut first).map_err(error)?;
    let format = format.unwrap_or_else(|| LayerFormat::sniff(&first));
    let said = format.compression();
    if let Some(actual) = said.contradicted_by(&first) {
        let lie = ztoc::BuildError::Mislabelled { said, actual };
        return Err(error(io::Error::new(io::ErrorKind::InvalidData, lie)));
    }
    let input = io::Cursor::new(first).chain(reader);
    Ok(match format {
        LayerFormat::Tar => Source::Tar(input),
        LayerFormat::Gzip => Source::Gzip(Box::new(Members::new(input))),
        LayerFormat::Zstd => Source::Zstd(zstd::stream::read::Decoder::with_buffer(input).map_err(error)?),
    })
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tar(input) => input.read(buffer),
            Self::Gzip(members) => members.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// gzip members one after another.
///
/// flate2's own reader of many members takes any junk after the last one for a broken member; gzip(1) accepts
/// zeros there, with which tapes and some registries' tools pad.
pub(super) struct Members<R: BufRead> {
    state: State<R>,
}

enum State<R> {
    Member(Box<flate2::bufread::GzDecoder<R>>),
    /// After a member.
    Between(R),
    Ended,
}

impl<R: BufRead> Members<R> {
    fn new(input: R) -> Self {
        Self { state: State::Member(Box::new(flate2::bufread::GzDecoder::new(input))) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Member(mut decoder) => match decoder.read(buffer) {
                    Ok(0) => self.state = State::Between(decoder.into_inner()),
                    other => {
                        self.state = State::Member(decoder);
                        return other;
                    }
                },
                State::Between(mut input) => match fill(&mut input)?.first() {
                    None => return Ok(0),
                    Some(0) => {
                        expect_zeros(&mut input)?;
                        return Ok(0);
                    }
                    Some(0x1f) => {
                        self.state = State::Member(Box::new(flate2::bufread::GzDecoder::new(input)))
                    }
                    Some(_) => return Err(trailing_garbage()),
                },
                State::Ended => return Ok(0),
            }
        }
    }
}

fn expect_zeros(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = fill(input)?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(trailing_garbage());
        }
        let length = rest.len();
        input.consume(length);
    }
}

/// `fill_buf` that goes on after EINTR, as `read_to_end` and its like do.
pub(super) fn fill(input: &mut impl BufRead) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Ok(_) => return input.fill_buf(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn trailing_garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the last gzip member is followed by something else")
}
