//! Completions and man pages of a program, compared with what its `--help` says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::need::{Need, available};

/// Shells that there are completions for.
pub const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

/// A command of a program, as its help has it.
#[derive(Debug)]
pub struct HelpedCommand {
    /// The words after the program's name; empty for the program itself.
    pub path: Vec<String>,
    /// Long flags, with their dashes.
    pub flags: BTreeSet<String>,
    /// Names of the commands in it.
    pub commands: Vec<String>,
}

fn output(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Every command of a program, by asking each for its help.
#[must_use]
pub fn commands(program: &Path) -> Vec<HelpedCommand> {
    let mut found = Vec::new();
    let mut pending = vec![Vec::<String>::new()];
    while let Some(path) = pending.pop() {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["-h"]).collect();
        let help = output(program, &arguments);
        let mut in_commands = false;
        let (mut flags, mut commands) = (BTreeSet::new(), Vec::new());
        for line in help.lines() {
            if !line.starts_with(' ') {
                in_commands = line == "Commands:";
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            // Deeper lines go on with a text.
            let is_first = line.starts_with("  ") && !line.starts_with("   ");
            match words.first() {
                Some(name) if in_commands && is_first && *name != "help" => commands.push((*name).to_owned()),
                Some(flag) if flag.starts_with('-') => {
                    let long = words.iter().take(2).find(|word| word.starts_with("--"));
                    flags.extend(long.map(|flag| flag.trim_end_matches(',').to_owned()));
                }
                _ => {}
            }
        }
        pending.extend(commands.iter().map(|name| [path.clone(), vec![name.clone()]].concat()));
        found.push(HelpedCommand { path, flags, commands });
    }
    found
}

/// Checks that completions for every shell have every command and flag.
///
/// # Panics
/// If one is missing.
pub fn check_completions(program: &Path) {
    let commands = commands(program);
    let name = program.file_name().unwrap().to_str().unwrap();
    for shell in SHELLS {
        let script = output(program, &["completion", shell]);
        for command in &commands {
            for sub in &command.commands {
                assert!(script.contains(sub.as_str()), "{shell}: no {sub} in {:?}", command.path);
            }
            for flag in &command.flags {
                let written = if shell == "fish" { flag.replacen("--", "-l ", 1) } else { flag.clone() };
                assert!(script.contains(&written), "{shell}: no {written} of {:?}", command.path);
            }
        }
    }
    if !available(&[Need::Program("bash", "bash")]) {
        return;
    }
    // And one shell for real.
    let script = output(program, &["completion", "bash"]);
    let function = format!("_{}", name.replace('-', "__"));
    for command in &commands {
        let words = [vec![name.to_owned()], command.path.clone()].concat();
        let complete = |start: &str| -> BTreeSet<String> {
            let last = words.last().unwrap();
            let asked = format!(
                "{script}\nCOMP_WORDS=({} {start})\nCOMP_CWORD={}\n{function} {name} '{start}' {last}\n\
                 printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                words.join(" "),
                words.len()
            );
            let output = Command::new("bash").args(["--norc", "-c", &asked]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        };
        let flags = complete("--");
        assert!(command.flags.is_subset(&flags), "{words:?}: {:?} completed to {flags:?}", command.flags);
        for sub in &command.commands {
            assert!(complete(&sub[..1]).contains(sub), "{words:?}: {sub} is not completed");
        }
    }
}

/// Checks that there is a man page for every command, that it has every flag, and that groff complains about nothing.
/// `directory` is written to.
///
/// # Panics
/// If not.
pub fn check_pages(program: &Path, section: u8, directory: &Path) {
    output(program, &["man", "--dir", directory.to_str().unwrap()]);
    let name = program.file_name().unwrap().to_str().unwrap();
    let mut expected = BTreeSet::new();
    for command in commands(program) {
        let words = [vec![name.to_owned()], command.path.clone()].concat();
        let file = format!("{}.{section}", words.join("-"));
        let page = std::fs::read_to_string(directory.join(&file)).unwrap();
        for flag in &command.flags {
            assert!(page.contains(&flag.replace('-', "\\-")), "{file}: no {flag}");
        }
        for sub in &command.commands {
            let other = format!("{}-{sub}({section})", words.join("-"));
            assert!(page.contains(&other.replace('-', "\\-")), "{file}: no {other}");
        }
        assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{file}: {page}");
        expected.insert(file);
    }
    let written: BTreeSet<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(written, expected);
    if !available(&[Need::Program("groff", "groff-base")]) {
        return;
    }
    for file in written {
        let rendered = Command::new("groff")
            .args(["-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"])
            .arg(directory.join(&file))
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&rendered.stderr);
        assert!(rendered.status.success() && complaints.is_empty(), "{file}: {complaints}");
    }
}
