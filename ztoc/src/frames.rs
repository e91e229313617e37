//! A Zstandard stream, frame by frame (RFC 8878).
//!
//! Decoding can begin at any frame, so frames are what spans are made of. Their headers are read here: the decoder
//! itself does not tell where a frame begins, nor data frames from skippable ones, and what a header asks for (a window,
//! a dictionary) is judged before anything is set aside for it.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::error::{BuildError, Error};
use crate::compression::Compression;

/// The first bytes of a data frame.
const MAGIC: u32 = 0xfd2f_b528;
/// The first bytes of a skippable frame, of which the lowest four bits are free.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Header of a skippable frame: magic and length, in bytes.
const SKIPPABLE_HEADER: usize = 8;
/// Longest header of a data frame: magic, descriptor, window, dictionary, content size, in bytes.
const MAX_HEADER: usize = 18;

/// Largest window that is accepted, as a power of two: 128 MiB, what zstd(1) accepts unasked and the most that it uses
/// without `--ultra --long=28` or above.
const MAX_WINDOW_LOG: u32 = 27;

/// zstd's code for being out of memory.
const OUT_OF_MEMORY: usize = 0usize.wrapping_sub(64);

/// Decodes frames one after another.
pub(crate) struct Frames {
    decoder: DCtx<'static>,
    state: State,
    header: [u8; MAX_HEADER],
    /// Bytes in `header`, while the state is [`State::Header`].
    filled: usize,
    /// The decoder has given all output for the input that it took.
    drained: bool,
    /// Largest window of a frame so far, in bytes.
    window: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames, or within a header.
    Header,
    /// Within a data frame, behind its header.
    Data,
    /// Within a skippable frame, this many bytes before its end.
    Skip(u32),
}

/// What one call of [`Frames::step`] did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) consumed: usize,
    pub(crate) produced: usize,
    /// A data frame has begun: the length of its header, which ends where the consumed bytes do.
    pub(crate) begun: Option<usize>,
}

/// Why frames cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// They are damaged, or no frames at all.
    Corrupt(&'static str),
    /// They ask for what is not given.
    Unsupported(&'static str),
    /// Not their fault.
    Internal(&'static str),
}

impl FrameError {
    /// The error of a builder that has come to this offset of the layer.
    pub(crate) fn at(self, offset: u64) -> BuildError {
        match self {
            Self::Corrupt(reason) => BuildError::Corrupt { compression: Compression::Zstd, offset, reason },
            Self::Unsupported(reason) => BuildError::UnsupportedFrame { offset, reason },
            Self::Internal(reason) => BuildError::Internal(reason),
        }
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        let (FrameError::Corrupt(reason) | FrameError::Unsupported(reason) | FrameError::Internal(reason)) =
            error;
        Self::Inflate(reason)
    }
}

/// What a header says, as far as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// It cannot be read before it has this many bytes.
    Wanted(usize),
    /// Followed by data that needs a window of this many bytes.
    Data(u64),
    /// Followed by this many bytes that mean nothing here.
    Skippable(u32),
}

impl Frames {
    /// A decoder at the start of a frame.
    pub(crate) fn new() -> Result<Self, FrameError> {
        let mut decoder = DCtx::try_create().ok_or(FrameError::Internal("no memory for the zstd decoder"))?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(failure)?;
        Ok(Self {
            decoder,
            state: State::Header,
            header: [0; MAX_HEADER],
            filled: 0,
            drained: true,
            window: 0,
        })
    }

    /// Bytes of memory that the decoder may have set aside: it keeps its largest window.
    pub(crate) fn memory(&self) -> u64 {
        self.window
    }

    /// Whether all frames so far are complete.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Header && self.filled == 0
    }

    /// Bytes of a header of which the rest is not there yet: what kind of frame they begin is not known.
    pub(crate) fn undecided(&self) -> usize {
        if self.state == State::Header { self.filled } else { 0 }
    }

    /// Goes on to the next header's end, or to where input or room for output is used up. If neither moves, more input
    /// is needed.
    pub(crate) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, FrameError> {
        let step = |consumed| Step { consumed, produced: 0, begun: None };
        match self.state {
            State::Header => self.take_header(input),
            State::Skip(left) => {
                let skipped = input.len().min(left as usize);
                let left = left - skipped as u32;
                self.state = if left == 0 { State::Header } else { State::Skip(left) };
                Ok(step(skipped))
            }
            // The decoder takes it for an error to be called in vain again and again.
            State::Data if input.is_empty() && self.drained => Ok(step(0)),
            State::Data => {
                let mut input = InBuffer::around(input);
                let room = output.len();
                let mut output = OutBuffer::around(output);
                let left = self.decoder.decompress_stream(&mut output, &mut input).map_err(failure)?;
                if left == 0 {
                    self.state = State::Header;
                }
                let (consumed, produced) = (input.pos(), output.pos());
                self.drained = produced < room;
                Ok(Step { consumed, produced, begun: None })
            }
        }
    }

    fn take_header(&mut self, input: &[u8]) -> Result<Step, FrameError> {
        let mut consumed = 0;
        loop {
            let begun = match parse(&self.header[..self.filled])? {
                Header::Wanted(length) => {
                    let taken = (length - self.filled).min(input.len() - consumed);
                    self.header[self.filled..self.filled + taken]
                        .copy_from_slice(&input[consumed..consumed + taken]);
                    self.filled += taken;
                    consumed += taken;
                    if self.filled < length {
                        return Ok(Step { consumed, produced: 0, begun: None });
                    }
                    continue;
                }
                Header::Skippable(0) => None,
                Header::Skippable(length) => {
                    self.state = State::Skip(length);
                    None
                }
                Header::Data(window) => {
                    self.window = self.window.max(window);
                    self.give_header()?;
                    self.state = State::Data;
                    Some(self.filled)
                }
            };
            self.filled = 0;
            return Ok(Step { consumed, produced: 0, begun });
        }
    }

    /// Hands the header on. Whole and by itself: so the decoder never gets a frame in one piece, and a frame whose
    /// content size is written in it takes the same way as others.
    fn give_header(&mut self) -> Result<(), FrameError> {
        let mut header = InBuffer::around(&self.header[..self.filled]);
        let mut nothing = [0; 0];
        self.decoder
            .decompress_stream(&mut OutBuffer::around(&mut nothing[..]), &mut header)
            .map_err(failure)?;
        self.drained = true;
        if header.pos() == self.filled {
            Ok(())
        } else {
            Err(FrameError::Corrupt("the frame's header is malformed"))
        }
    }
}

fn failure(code: usize) -> FrameError {
    let reason = get_error_name(code);
    if code == OUT_OF_MEMORY { FrameError::Internal(reason) } else { FrameError::Corrupt(reason) }
}

/// Reads the header of a frame, RFC 8878 3.1.1.1 and 3.1.2.
fn parse(bytes: &[u8]) -> Result<Header, FrameError> {
    let Some((magic, rest)) = bytes.split_first_chunk() else { return Ok(Header::Wanted(4)) };
    let magic = u32::from_le_bytes(*magic);
    if magic & !0xf == SKIPPABLE {
        return Ok(match rest.first_chunk() {
            Some(length) => Header::Skippable(u32::from_le_bytes(*length)),
            None => Header::Wanted(SKIPPABLE_HEADER),
        });
    }
    if magic != MAGIC {
        return Err(FrameError::Corrupt("no zstd frame begins here"));
    }
    let Some((descriptor, rest)) = rest.split_first() else { return Ok(Header::Wanted(5)) };
    let single_segment = descriptor & 0x20 != 0;
    let window = usize::from(!single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content = match descriptor >> 6 {
        0 => usize::from(single_segment),
        power => 1 << power,
    };
    let wanted = window + dictionary + content;
    if rest.len() < wanted {
        return Ok(Header::Wanted(5 + wanted));
    }
    let (window, rest) = rest.split_at(window);
    let (dictionary, content) = rest.split_at(dictionary);
    if dictionary.iter().any(|byte| *byte != 0) {
        return Err(FrameError::Unsupported("it needs a dictionary"));
    }
    let window = match window {
        [byte] => {
            let base = 1u64 << (10 + (byte >> 3));
            base + base / 8 * u64::from(byte & 7)
        }
        // The window is the content, whose size is stored less 256 if it has two bytes: no matter here.
        _ => content.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)),
    };
    if window > 1 << MAX_WINDOW_LOG {
        return Err(FrameError::Unsupported("its window is larger than 128 MiB"));
    }
    Ok(Header::Data(window))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    fn decode(stream: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, Vec<usize>, bool), FrameError> {
        let mut frames = Frames::new()?;
        let (mut output, mut begun, mut at) = (Vec::new(), Vec::new(), 0);
        let mut buffer = vec![0; room];
        for piece in stream.chunks(piece) {
            let mut used = 0;
            loop {
                let step = frames.step(&piece[used..], &mut buffer)?;
                used += step.consumed;
                at += step.consumed;
                begun.extend(step.begun.map(|header| at - header));
                output.extend_from_slice(&buffer[..step.produced]);
                if step.consumed == 0 && step.produced == 0 {
                    break;
                }
            }
            assert_eq!(used, piece.len());
        }
        Ok((output, begun, frames.is_between()))
    }

    fn skippable(nibble: u8, length: usize) -> Vec<u8> {
        let mut frame = (SKIPPABLE + u32::from(nibble)).to_le_bytes().to_vec();
        frame.extend((length as u32).to_le_bytes());
        frame.resize(frame.len() + length, 0x28);
        frame
    }

    #[test]
    fn frames_are_found_however_the_input_is_cut() {
        let text: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let mut stream = skippable(3, 20);
        let mut starts = Vec::new();
        for part in [&text[..100], &[], &text[100..101], &text[101..100_000], &text[100_000..]] {
            starts.push(stream.len());
            stream.extend(zstd::encode_all(part, 3).unwrap());
            stream.extend(skippable(15, 0));
        }
        for (piece, room) in [(1, 100), (7, 1), (1 << 20, 1 << 20), (1000, 70_000), (1 << 20, 10)] {
            let (output, begun, whole) = decode(&stream, piece, room).unwrap();
            assert!(output == text, "{piece} {room}");
            assert_eq!((begun, whole), (starts.clone(), true));
        }
        for end in [1, 7, 27, 30, stream.len() - 1] {
            assert!(!decode(&stream[..end], 100, 1000).unwrap().2, "{end}");
        }
    }

    #[test]
    fn every_form_of_header_is_read() {
        use zstd::zstd_safe::{CCtx, CParameter};
        for (length, level, checksum, size) in [
            (0, 1, false, true),
            (255, 1, true, true),
            (256, 3, false, true),
            (65_791, 3, true, true),
            (65_792, 3, true, false),
            (3 << 20, 9, false, false),
            (3 << 20, -5, true, true),
        ] {
            let text: Vec<u8> = (0..length).map(|n: usize| (n / 100) as u8).collect();
            let mut encoder = CCtx::create();
            encoder.set_parameter(CParameter::CompressionLevel(level)).unwrap();
            encoder.set_parameter(CParameter::ChecksumFlag(checksum)).unwrap();
            encoder.set_parameter(CParameter::ContentSizeFlag(size)).unwrap();
            let mut frame = Vec::with_capacity(length + 1000);
            encoder.compress2(&mut frame, &text).unwrap();
            let (output, begun, whole) = decode(&frame, 1000, 1000).unwrap();
            assert!(output == text && begun == [0] && whole, "{length} {level}");
        }
    }

    #[test]
    fn what_a_header_must_not_ask_for_is_refused() {
        let header = |rest: &[u8]| decode(&[&MAGIC.to_le_bytes(), rest].concat(), 1, 10).unwrap_err();
        let window = FrameError::Unsupported("its window is larger than 128 MiB");
        let dictionary = FrameError::Unsupported("it needs a dictionary");
        // Exponent 17 and mantissa 1; exponent 31; a single segment of 2^62 bytes.
        assert_eq!(header(&[0, 17 << 3 | 1]), window);
        assert_eq!(header(&[0, 255]), window);
        assert_eq!(header(&[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40]), window);
        assert_eq!(header(&[1, 0, 7]), dictionary);
        assert_eq!(header(&[3, 0, 0, 0, 0, 1]), dictionary);
        // A reserved bit.
        assert!(matches!(header(&[8, 0]), FrameError::Corrupt(_)));
        for junk in [&b"junk"[..], &[0; 4], &[0x27, 0xb5, 0x2f, 0xfd]] {
            assert_eq!(decode(junk, 1, 10).unwrap_err(), FrameError::Corrupt("no zstd frame begins here"));
        }
        assert!(decode(&[&MAGIC.to_le_bytes()[..], &[0, 17 << 3]].concat(), 1, 10).is_ok());
    }

    #[test]
    fn a_wrong_checksum_is_found() {
        use std::io::Write;
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(&[7; 1000]).unwrap();
        let mut frame = encoder.finish().unwrap();
        assert!(decode(&frame, 10, 10).is_ok());
        *frame.last_mut().unwrap() ^= 1;
        assert!(
            matches!(decode(&frame, 10, 10).unwrap_err(), FrameError::Corrupt(reason) if reason.contains("checksum"))
        );
    }
}
