//! Lists what a zTOC says: the spans of the layer, and each file with the spans that its content lies in.
//!
//! ```sh
//! cargo run -p ztoc --example list -- target/gnu.ztoc
//! ```

use std::error::Error;
use std::io::Write;

use ztoc::Ztoc;

/// `arguments`: the file of the zTOC.
pub(crate) fn run(arguments: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let [path] = arguments else { return Err("usage: list ZTOC".into()) };
    let ztoc = Ztoc::parse(std::fs::read(path)?.into())?;
    let spans = ztoc.spans();
    writeln!(out, "span  bytes of the layer        bytes of the archive")?;
    for span in 0..spans.len() {
        let (layer, archive) = (spans.compressed(span), spans.uncompressed(span));
        let layer = format!("{}..{}", layer.start, layer.end);
        writeln!(out, "{span:<5} {layer:<25} {}..{}", archive.start, archive.end)?;
    }
    writeln!(out, "\nkind      size        spans     name")?;
    for entry in ztoc.entries() {
        let spans = spans.spans_of(&(entry.offset..entry.offset + entry.size));
        let spans = if spans.is_empty() { "-".to_owned() } else { format!("{}..{}", spans.start, spans.end) };
        // Names in an archive need not be UTF-8.
        writeln!(
            out,
            "{:<9} {:<11} {spans:<9} {}",
            entry.kind.as_str(),
            entry.size,
            entry.name.escape_ascii()
        )?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments, &mut std::io::stdout())
}
