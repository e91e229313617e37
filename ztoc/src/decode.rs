//! Decoding spans: from compressed bytes, beginning at a checkpoint, to bytes of the archive.

use super::error::Error;
use super::spans::Checkpoint;
use crate::compression::Compression;
use crate::frames::Frames;
use crate::inflate::{Framing, Inflate, State, Stop};

/// Size of a gzip member's trailer (CRC-32 and length), in bytes.
const TRAILER_SIZE: u8 = 8;

/// Decodes the bytes that follow a checkpoint, while they arrive.
///
/// It yields exactly the number of bytes it was made for; feed it with [`SpanDecoder::decode`] until
/// [`SpanDecoder::is_complete`].
pub struct SpanDecoder {
    state: Mode,
    missing: u64,
}

enum Mode {
    Plain,
    /// The next byte holds the first `bits` bits in its high-order bits.
    Prime {
        inflate: Inflate,
        bits: u8,
    },
    Inflate {
        inflate: Inflate,
        framing: Framing,
    },
    /// Between members, with this much of the trailer still to come.
    Trailer {
        inflate: Inflate,
        left: u8,
    },
    Zstd(Frames),
    /// After an error: nothing more comes.
    Failed,
}

impl SpanDecoder {
    /// A decoder for the `length` bytes of the archive that follow `checkpoint`.
    ///
    /// # Errors
    /// If the checkpoint is refused by the inflater, or there is no memory for a decoder.
    pub fn new(checkpoint: &Checkpoint<'_>, length: u64) -> Result<Self, Error> {
        let state = match checkpoint.compression {
            Compression::Uncompressed => Mode::Plain,
            Compression::Gzip => {
                let mut inflate = Inflate::new(Framing::Raw).map_err(Error::Inflate)?;
                if !checkpoint.window.is_empty() {
                    inflate.set_dictionary(&checkpoint.window).map_err(Error::Inflate)?;
                }
                match checkpoint.bits {
                    0 => Mode::Inflate { inflate, framing: Framing::Raw },
                    bits => Mode::Prime { inflate, bits },
                }
            }
            Compression::Zstd => Mode::Zstd(Frames::new()?),
        };
        Ok(Self { state, missing: length })
    }

    /// Whether all output was made.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Output that is still to come, in bytes.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Decodes from the front of `input`, which is shortened by what was used, to the front of `output`.
    /// Returns how many bytes were written: less than there is room for only if the input is used up or
    /// the output is complete.
    ///
    /// # Errors
    /// If the input is not what the checkpoint promises.
    pub fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error> {
        let room = usize::try_from(self.missing).map_or(output.len(), |missing| missing.min(output.len()));
        let mut written = 0;
        while written < room {
            let (produced, stuck) = self.step(input, &mut output[written..room])?;
            written += produced;
            if stuck {
                break;
            }
        }
        self.missing -= written as u64;
        Ok(written)
    }

    /// One move; returns the output made and whether it needs more input.
    fn step(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<(usize, bool), Error> {
        // Moves between modes take the inflater along, so the old one is taken out first.
        let (next, produced, stuck) = match std::mem::replace(&mut self.state, Mode::Failed) {
            Mode::Failed => return Err(Error::Inflate("the span has failed before")),
            Mode::Plain => {
                let taken = input.len().min(output.len());
                output[..taken].copy_from_slice(&input[..taken]);
                *input = &input[taken..];
                (Mode::Plain, taken, taken == 0)
            }
            Mode::Prime { mut inflate, bits } => match input.split_first() {
                None => (Mode::Prime { inflate, bits }, 0, true),
                Some((byte, rest)) => {
                    *input = rest;
                    inflate.prime(bits, byte >> (8 - bits)).map_err(Error::Inflate)?;
                    (Mode::Inflate { inflate, framing: Framing::Raw }, 0, false)
                }
            },
            Mode::Inflate { mut inflate, framing } => {
                let step = inflate.step(input, output, Stop::Never).map_err(Error::Inflate)?;
                *input = &input[step.consumed..];
                let next = match (step.state, framing) {
                    (State::End, Framing::Raw) => Mode::Trailer { inflate, left: TRAILER_SIZE },
                    (State::End, Framing::Auto) => Mode::Trailer { inflate, left: 0 },
                    _ => Mode::Inflate { inflate, framing },
                };
                let moved = step.consumed > 0 || step.produced > 0 || step.state == State::End;
                (next, step.produced, !moved)
            }
            Mode::Zstd(mut frames) => {
                let step = frames.step(input, output)?;
                *input = &input[step.consumed..];
                let moved = step.consumed > 0 || step.produced > 0;
                (Mode::Zstd(frames), step.produced, !moved)
            }
            Mode::Trailer { mut inflate, left } => {
                let skipped = input.len().min(left.into());
                *input = &input[skipped..];
                let left = left - skipped as u8;
                if input.is_empty() {
                    (Mode::Trailer { inflate, left }, 0, true)
                } else {
                    inflate.reset(Framing::Auto).map_err(Error::Inflate)?;
                    (Mode::Inflate { inflate, framing: Framing::Auto }, 0, false)
                }
            }
        };
        self.state = next;
        Ok((produced, stuck))
    }
}

impl std::fmt::Debug for SpanDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanDecoder").field("missing", &self.missing).finish_non_exhaustive()
    }
}
