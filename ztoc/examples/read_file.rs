//! Reads one file of a layer with one ranged read. Only the spans that hold the file are read, verified and inflated.
//!
//! ```sh
//! cargo run -p ztoc --example read_file -- testdata/golden/layers/gnu.tar.gz target/gnu.ztoc NAME
//! ```
//!
//! Here the layer is a local file. In a registry the read is a request with the header `Range`.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use ztoc::Ztoc;

/// `arguments`: the file of the layer, that of its zTOC, and the name of an entry.
pub(crate) fn run(arguments: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let [layer, ztoc, name] = arguments else { return Err("usage: read_file LAYER ZTOC NAME".into()) };
    let ztoc = Ztoc::parse(std::fs::read(ztoc)?.into())?;
    let entry = ztoc.entries().find(|entry| entry.name == name.as_bytes());
    let entry = entry.ok_or("the layer has no entry of this name")?;
    let content = entry.offset..entry.offset + entry.size;

    // Spans follow each other in the layer, so one range holds all that are needed.
    let spans = ztoc.spans();
    let needed = spans.spans_of(&content);
    if needed.is_empty() {
        return Ok(());
    }
    let start = spans.compressed(needed.start).start;
    let end = spans.compressed(needed.end - 1).end;
    let mut bytes = vec![0; usize::try_from(end - start)?];
    File::open(layer)?.read_exact_at(&mut bytes, start)?;

    // The layer may have come from anywhere: nothing is inflated before its digest is known to be right.
    for span in needed {
        let at = spans.compressed(span);
        let at = usize::try_from(at.start - start)?..usize::try_from(at.end - start)?;
        spans.verify(span, &bytes[at])?;
    }
    out.write_all(&ztoc.extract(content, &bytes)?)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments, &mut std::io::stdout())
}
