//! Where the paths in a file lead.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenTree};

use crate::crate_files::{CrateFiles, SourceFile, is_word};

/// The other files that the paths of a file lead into.
pub(crate) fn targets(files: &CrateFiles, file: &SourceFile) -> BTreeSet<String> {
    let mut found = Vec::new();
    walk(files, &file.code, &file.module, &mut found);
    let mut targets = BTreeSet::new();
    for path in found {
        if let Some(target) = files.of(&path).filter(|target| target.path != file.path) {
            targets.insert(target.path.clone());
        }
    }
    targets
}

/// Collects all paths, from the crate's root, that begin in these tokens.
fn walk(files: &CrateFiles, code: &[TokenTree], module: &[String], found: &mut Vec<Vec<String>>) {
    let mut at = 0;
    while at < code.len() {
        match &code[at] {
            TokenTree::Ident(word) => {
                if word == "pub" && is_parenthesised(code.get(at + 1)) {
                    // A visibility is no use.
                    at += 2;
                    continue;
                }
                if word == "mod" {
                    at = nested_module(files, code, at, module, found);
                    continue;
                }
                let begins =
                    at == 0 || !is_colons(code, at.wrapping_sub(2)) && !is_mark(code.get(at - 1), '.');
                if begins && is_colons(code, at + 1) {
                    let Some(start) = first(files, &word.to_string(), module) else {
                        at += 1;
                        continue;
                    };
                    at = follow(code, at + 1, start, found);
                    continue;
                }
                if begins && at > 0 && is_word(&code[at - 1], "use") {
                    // `use child;` or `use child as name;`
                    if let Some(start) = first(files, &word.to_string(), module) {
                        found.push(start);
                    }
                }
                at += 1;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                walk(files, &inner, module, found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

fn nested_module(
    files: &CrateFiles,
    code: &[TokenTree],
    at: usize,
    module: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) = (code.get(at + 1), code.get(at + 2))
    {
        let inner: Vec<TokenTree> = body.stream().into_iter().collect();
        let module: Vec<String> = module.iter().cloned().chain([name.to_string()]).collect();
        walk(files, &inner, &module, found);
    }
    at + 3
}

/// The module, from the crate's root, that the first word of a path stands for; none if it is of another crate, or
/// something that was imported before.
fn first(files: &CrateFiles, word: &str, module: &[String]) -> Option<Vec<String>> {
    match word {
        "crate" => Some(Vec::new()),
        "self" => Some(module.to_vec()),
        "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
        child => {
            let path: Vec<String> = module.iter().cloned().chain([child.to_owned()]).collect();
            files.is_module(&path).then_some(path)
        }
    }
}

/// Follows a path from the `::` at `at` on. Returns where it ends.
fn follow(code: &[TokenTree], mut at: usize, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    while is_colons(code, at) {
        match code.get(at + 2) {
            Some(TokenTree::Ident(word)) => {
                let word = word.to_string();
                match word.as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    _ => path.push(word),
                }
                at += 3;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                branches(&group.stream().into_iter().collect::<Vec<_>>(), &path, found);
                return at + 3;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

/// The branches of `use a::{b, c::d}`.
fn branches(code: &[TokenTree], path: &[String], found: &mut Vec<Vec<String>>) {
    for branch in code.split(|token| is_mark(Some(token), ',')) {
        let Some(TokenTree::Ident(word)) = branch.first() else { continue };
        let mut inner = path.to_vec();
        if word != "self" {
            inner.push(word.to_string());
        }
        follow(branch, 1, inner, found);
    }
}

fn is_colons(code: &[TokenTree], at: usize) -> bool {
    is_mark(code.get(at), ':') && is_mark(code.get(at.wrapping_add(1)), ':')
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_parenthesised(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}
