//! The files of a crate, and which module each of them is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file, as the compiler finds it.
pub(crate) struct SourceFile {
    /// Relative to the crate's `src`.
    pub(crate) path: String,
    /// Names of the modules that lead to it.
    pub(crate) module: Vec<String>,
    /// Its code without tests.
    pub(crate) code: Vec<TokenTree>,
}

/// All files of a crate that are compiled without tests.
pub(crate) struct CrateFiles {
    files: Vec<SourceFile>,
    modules: BTreeMap<Vec<String>, usize>,
}

impl CrateFiles {
    /// All files.
    pub(crate) fn all(&self) -> &[SourceFile] {
        &self.files
    }

    /// The file that a path from the crate's root leads into: that of the longest module among its beginnings.
    pub(crate) fn of(&self, path: &[String]) -> Option<&SourceFile> {
        let longest = (0..=path.len()).rev().find_map(|length| self.modules.get(&path[..length]))?;
        Some(&self.files[*longest])
    }

    /// Whether a path from the crate's root names a module.
    pub(crate) fn is_module(&self, path: &[String]) -> bool {
        self.modules.contains_key(path)
    }
}

/// Reads what cargo builds in a directory: the library, and each program. A program sees the library from outside, so it is
/// a crate of its own.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Vec<CrateFiles>> {
    let source = directory.join("src");
    let mut found = Vec::new();
    for root in ["lib.rs", "main.rs"] {
        if source.join(root).exists() {
            found.push(read_from(&source, root)?);
        }
    }
    if let Ok(programs) = source.join("bin").read_dir() {
        for program in programs {
            let program = program?.path();
            if program.join("main.rs").exists() {
                found.push(read_from(&program, "main.rs")?);
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "there is neither a library nor a program");
    Ok(found)
}

fn read_from(source: &Path, root: &str) -> anyhow::Result<CrateFiles> {
    let mut found = CrateFiles { files: Vec::new(), modules: BTreeMap::new() };
    add(&mut found, source, Path::new(root), Vec::new())?;
    Ok(found)
}

fn add(found: &mut CrateFiles, source: &Path, path: &Path, module: Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(source.join(path)).with_context(|| path.display().to_string())?;
    let code: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let code = without_tests(code);
    let index = found.files.len();
    found.modules.insert(module.clone(), index);
    let children = modules(&code);
    found.files.push(SourceFile { path: path.display().to_string(), module: module.clone(), code });
    for child in children {
        let inner: Vec<String> = module.iter().chain(&child.path).cloned().collect();
        if child.inline {
            found.modules.insert(inner, index);
            continue;
        }
        let directory: PathBuf = inner[..inner.len() - 1].iter().collect();
        let name = &inner[inner.len() - 1];
        let flat = directory.join(format!("{name}.rs"));
        let nested = directory.join(name).join("mod.rs");
        let file = if source.join(&flat).exists() { flat } else { nested };
        add(found, source, &file, inner)?;
    }
    Ok(())
}

/// A module that is declared in a file.
struct Child {
    path: Vec<String>,
    inline: bool,
}

fn modules(code: &[TokenTree]) -> Vec<Child> {
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        if !is_word(token, "mod") {
            continue;
        }
        let Some(TokenTree::Ident(name)) = code.get(at + 1) else { continue };
        let name = name.to_string();
        match code.get(at + 2) {
            Some(TokenTree::Punct(end)) if end.as_char() == ';' => {
                found.push(Child { path: vec![name], inline: false });
            }
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
                found.push(Child { path: vec![name.clone()], inline: true });
                let inner: Vec<TokenTree> = body.stream().into_iter().collect();
                for child in modules(&inner) {
                    let path = std::iter::once(name.clone()).chain(child.path).collect();
                    found.push(Child { path, inline: child.inline });
                }
            }
            _ => {}
        }
    }
    found
}

/// Leaves out what `#[cfg(test)]` stands before, at any depth.
fn without_tests(code: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = code.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let starts = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '#');
        if starts && matches!(tokens.peek(), Some(TokenTree::Group(group)) if is_test(group)) {
            // The item ends with its body, or with a semicolon. A comma ends a field.
            for token in tokens.by_ref() {
                let ends = match &token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(mark) => matches!(mark.as_char(), ';' | ','),
                    _ => false,
                };
                if ends {
                    break;
                }
            }
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let inner: TokenStream = without_tests(group.stream()).into_iter().collect();
                TokenTree::Group(proc_macro2::Group::new(group.delimiter(), inner))
            }
            other => other,
        });
    }
    kept
}

fn is_test(attribute: &proc_macro2::Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text == "test"
}

/// Whether a token is this word.
pub(crate) fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}
