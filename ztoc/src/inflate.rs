//! A safe inflater with what checkpoints need: stopping at block boundaries, priming and dictionaries.
//!
//! This is the only module of the crate with `unsafe` code. `flate2` has no `Z_BLOCK`, so the C-shaped
//! interface of `libz-rs-sys` (zlib in Rust) is called directly.
#![expect(unsafe_code, reason = "only the C-shaped interface of the inflater stops at block boundaries")]

use std::ffi::c_int;

use libz_rs_sys as z;

/// How the compressed stream is framed; the values are zlib's `windowBits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Framing {
    /// Raw deflate, no header and no trailer.
    Raw = -15,
    /// gzip or zlib, found out from the header, with the checksum verified.
    Auto = 47,
}

/// Whether to return at every deflate block boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    AtBlocks,
    Never,
}

/// What one call of [`Inflate::step`] did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) consumed: usize,
    pub(crate) produced: usize,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// More input or more room for output is needed.
    Running,
    /// At a boundary where inflating can begin anew: after a header, or after a block that is not the
    /// member's last. `bits` of the last consumed byte belong to what follows.
    Boundary { bits: u8 },
    /// The member (or the raw stream) is complete.
    End,
}

/// An inflate stream.
pub(crate) struct Inflate {
    // Boxed so that its address is stable: zlib's interface lets the state point back to the stream.
    stream: Box<z::z_stream>,
}

// SAFETY: the stream owns all that its pointers refer to (the state made by inflateInit2_, freed by
// inflateEnd); the input and output pointers are reset before every use and never read in between.
unsafe impl Send for Inflate {}

impl Inflate {
    pub(crate) fn new(framing: Framing) -> Result<Self, &'static str> {
        let mut stream = Box::new(z::z_stream::default());
        // SAFETY: `stream` is a valid z_stream with null buffers; version and size are the library's own.
        let code = unsafe {
            z::inflateInit2_(
                &mut *stream,
                framing as c_int,
                z::zlibVersion(),
                c_int::try_from(size_of::<z::z_stream>()).unwrap_or(0),
            )
        };
        if code == z::Z_OK { Ok(Self { stream }) } else { Err("the inflater cannot be initialised") }
    }

    /// Starts anew with another framing.
    pub(crate) fn reset(&mut self, framing: Framing) -> Result<(), &'static str> {
        // SAFETY: the stream was initialised by inflateInit2_.
        let code = unsafe { z::inflateReset2(&mut *self.stream, framing as c_int) };
        if code == z::Z_OK { Ok(()) } else { Err("the inflater cannot be reset") }
    }

    /// Feeds `bits` (0 to 7) bits of `value` before the input. Raw streams only, before any input.
    pub(crate) fn prime(&mut self, bits: u8, value: u8) -> Result<(), &'static str> {
        // SAFETY: the stream was initialised by inflateInit2_.
        let code = unsafe { z::inflatePrime(&mut *self.stream, c_int::from(bits), c_int::from(value)) };
        if code == z::Z_OK { Ok(()) } else { Err("the inflater refuses the checkpoint's bits") }
    }

    /// Sets the output that came before the start, at most 32 KiB. Raw streams only.
    pub(crate) fn set_dictionary(&mut self, window: &[u8]) -> Result<(), &'static str> {
        let length = u32::try_from(window.len()).map_err(|_| "the checkpoint's window is too long")?;
        // SAFETY: the stream was initialised; pointer and length describe `window`, which is only read.
        let code = unsafe { z::inflateSetDictionary(&mut *self.stream, window.as_ptr(), length) };
        if code == z::Z_OK { Ok(()) } else { Err("the inflater refuses the checkpoint's window") }
    }

    /// Inflates from `input` to `output` until one is used up, the member ends or, if asked, a block does.
    pub(crate) fn step(&mut self, input: &[u8], output: &mut [u8], stop: Stop) -> Result<Step, &'static str> {
        let stream = &mut *self.stream;
        let avail_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let avail_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        stream.next_in = input.as_ptr();
        stream.avail_in = avail_in;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = avail_out;
        let flush = if stop == Stop::AtBlocks { z::Z_BLOCK } else { z::Z_NO_FLUSH };
        // SAFETY: the stream was initialised; both buffers are valid for the lengths given and outlive the
        // call, and they do not overlap since `output` is borrowed mutably.
        let code = unsafe { z::inflate(stream, flush) };
        let consumed = (avail_in - stream.avail_in) as usize;
        let produced = (avail_out - stream.avail_out) as usize;
        let state = match code {
            z::Z_STREAM_END => State::End,
            z::Z_OK if stream.data_type & 128 != 0 && stream.data_type & 64 == 0 => {
                State::Boundary { bits: (stream.data_type & 7) as u8 }
            }
            // No progress was possible: not an error, the caller decides whether there is more input.
            z::Z_OK | z::Z_BUF_ERROR => State::Running,
            z::Z_DATA_ERROR => return Err("invalid data or checksum"),
            z::Z_NEED_DICT => return Err("the stream wants a preset dictionary"),
            z::Z_MEM_ERROR => return Err("out of memory"),
            _ => return Err("the inflater failed"),
        };
        Ok(Step { consumed, produced, state })
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised by inflateInit2_ and is not used afterwards.
        unsafe { z::inflateEnd(&mut *self.stream) };
    }
}
