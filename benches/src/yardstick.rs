//! Inflating without doing anything with the result: what any builder has to pay at least.
//!
//! The two libraries have the same C-shaped interface, so one macro gives both.
#![expect(unsafe_code, reason = "zlib has a C interface, and a yardstick that breaks measures nothing")]

/// How to inflate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To the end of the input.
    Bare,
    /// Stopping at every block boundary, as one must to make checkpoints (`Z_BLOCK`).
    Blocks,
}

/// Room for output, in bytes: as much as the builder uses.
const OUTPUT: usize = 256 * 1024;
/// What is handed over at once, in bytes: as much as the builder gets.
const INPUT: usize = 1 << 20;

macro_rules! inflater {
    ($(#[$doc:meta])* $name:ident, $z:ident) => {
        $(#[$doc])*
        ///
        /// # Panics
        /// If the input is not gzip.
        pub fn $name(input: &mut dyn std::io::Read, mode: Mode) -> u64 {
            let flush = if mode == Mode::Blocks { $z::Z_BLOCK } else { $z::Z_NO_FLUSH };
            let mut output = vec![0u8; OUTPUT];
            let mut buffer = vec![0u8; INPUT];
            let mut total = 0;
            // All zeros is what the interface asks for before inflateInit2_: null buffers, and no allocator of
            // the caller's. It stays a raw pointer, since a null allocator is not a valid value of the C type.
            let mut zeroed = std::mem::MaybeUninit::<$z::z_stream>::zeroed();
            let stream = zeroed.as_mut_ptr();
            // SAFETY: the stream is zeroed; version and size are the library's own.
            let code = unsafe { $z::inflateInit2_(stream, 47, $z::zlibVersion(), size_of::<$z::z_stream>() as i32) };
            assert_eq!(code, $z::Z_OK);
            loop {
                let length = input.read(&mut buffer).unwrap_or(0);
                if length == 0 {
                    break;
                }
                // SAFETY: fields of plain numbers and pointers, in memory that is ours.
                unsafe {
                    (*stream).next_in = buffer.as_mut_ptr();
                    (*stream).avail_in = length as u32;
                }
                loop {
                    // SAFETY: the stream is initialised; both buffers are valid for the lengths given, and
                    // outlive the call.
                    let (code, left_in, left_out) = unsafe {
                        (*stream).next_out = output.as_mut_ptr();
                        (*stream).avail_out = OUTPUT as u32;
                        let code = $z::inflate(stream, flush);
                        (code, (*stream).avail_in, (*stream).avail_out)
                    };
                    total += u64::from(OUTPUT as u32 - left_out);
                    match code {
                        $z::Z_STREAM_END if left_in > 0 => {
                            // SAFETY: the stream is initialised.
                            unsafe { $z::inflateReset(stream) };
                        }
                        $z::Z_OK if left_in > 0 || left_out == 0 => {}
                        $z::Z_OK | $z::Z_STREAM_END | $z::Z_BUF_ERROR => break,
                        other => panic!("inflate failed: {other}"),
                    }
                }
            }
            // SAFETY: the stream is initialised and not used afterwards.
            unsafe { $z::inflateEnd(stream) };
            total
        }
    };
}

inflater!(
    /// Inflates gzip with stock zlib, the C library; returns the number of bytes made.
    stock_zlib,
    libz_sys
);
inflater!(
    /// Inflates gzip with `libz-rs-sys`, zlib in Rust; returns the number of bytes made.
    zlib_rs,
    libz_rs_sys
);
