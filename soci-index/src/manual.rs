//! Shell completions and man pages, made from what `--help` is made from; the same for every program of the project.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, roman};

/// Pages are of a release, not of a revision.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Print completions for a shell
///
/// Where shells look for them, PROGRAM being this program:
///   bash    /usr/share/bash-completion/completions/PROGRAM
///           or ~/.local/share/bash-completion/completions/PROGRAM
///   zsh     _PROGRAM in a directory of $fpath, such as /usr/share/zsh/vendor-completions
///   fish    /usr/share/fish/vendor_completions.d/PROGRAM.fish
///           or ~/.config/fish/completions/PROGRAM.fish
///
/// elvish and powershell evaluate the output in rc.elv or the profile.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}

/// Write the man pages of this program, one for each command
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory to write them to; it is created
    #[arg(long = "dir", value_name = "DIR")]
    pub directory: PathBuf,
}

/// Part of the manual that pages are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// 1: commands for users.
    Commands,
    /// 8: daemons and commands for administrators.
    Daemons,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commands => "1",
            Self::Daemons => "8",
        })
    }
}

/// Why there are no man pages.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct ManualError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Completions of the program `name` for a shell: commands and flags, and paths and values where they can be known.
#[must_use]
pub fn completion(name: &'static str, command: Command, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut without_hidden(name, command), name, &mut script);
    if shell != Shell::Bash {
        return script;
    }
    // The generator (4.6) writes a program's name in two ways if it has a hyphen, so that bash would not find what to
    // offer after a command.
    let wrong = name.replace('-', "__subcmd__");
    String::from_utf8_lossy(&script).replace(&wrong, &name.replace('-', "__")).into_bytes()
}

/// The same program without its hidden commands, which completions would offer.
fn without_hidden(name: &'static str, command: Command) -> Command {
    if !command.get_subcommands().any(Command::is_hide_set) {
        return command;
    }
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new(name)
        .version(VERSION)
        .disable_version_flag(command.is_disable_version_flag_set())
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned())
        .subcommands(visible)
}

/// Man pages of a program and its commands: file names and contents.
///
/// # Errors
/// None is known: pages are made in memory.
pub fn pages(command: Command, section: Section) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    // The command `help` says what the pages say.
    let mut command = command.version(VERSION).disable_help_subcommand(true);
    command.build();
    let mut pending = vec![command];
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        pages.push(page(command, section)?);
    }
    pages.sort();
    Ok(pages)
}

/// Writes the [`pages`] to a directory.
///
/// # Errors
/// If the directory or a file cannot be written.
pub fn write_pages(command: Command, section: Section, directory: &Path) -> Result<(), ManualError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ManualError { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, text) in pages(command, section).map_err(failed(directory))? {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

fn page(command: Command, section: Section) -> io::Result<(String, Vec<u8>)> {
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    let after = command.get_after_long_help().or_else(|| command.get_after_help()).map(ToString::to_string);
    let has_commands = command.get_subcommands().any(|command| !command.is_hide_set());
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_uppercase();
    let man = Man::new(command).section(section.to_string());
    // Without a date, which would differ from build to build. The generator leaves empty arguments out.
    let mut text = format!(".TH \"{name}\" \"{section}\" \"\" \"soci {VERSION}\" \"SOCI\"\n").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    // These two parts have tables and commands in them, which the generator would fill like prose.
    let mut description = Roff::new();
    description.control("SH", ["DESCRIPTION"]);
    prose(&mut description, about.as_deref().unwrap_or_default());
    description.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    for (heading, body) in sections(after.as_deref().unwrap_or_default()) {
        more.control("SH", [heading.to_uppercase().as_str()]);
        prose(&mut more, &body);
    }
    more.to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

/// What follows the options in a help text, by headings: lines, or starts of lines, that end with a colon.
fn sections(text: &str) -> Vec<(&str, String)> {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        let heading = line.split_once(':').filter(|(heading, rest)| {
            let is_plain = heading.chars().all(|c| c.is_alphabetic() || c == ' ');
            is_plain && !heading.starts_with(' ') && (rest.is_empty() || rest.starts_with(' '))
        });
        match (heading, sections.last_mut()) {
            (Some((heading, rest)), _) => sections.push((heading, format!("{}\n", rest.trim_start()))),
            (None, Some((_, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => sections.push(("Notes", format!("{line}\n"))),
        }
    }
    sections
}

/// Paragraphs, and indented lines as they are.
fn prose(roff: &mut Roff, text: &str) {
    let mut verbatim = false;
    let mut paragraph = false;
    for line in text.trim_end().lines() {
        if line.trim().is_empty() {
            paragraph = true;
            continue;
        }
        let indented = line.starts_with(' ');
        if verbatim && !indented {
            roff.control("fi", []);
        }
        if paragraph {
            roff.control("PP", []);
        }
        if indented && !verbatim {
            roff.control("nf", []);
        }
        (verbatim, paragraph) = (indented, false);
        roff.text([roman(line)]);
    }
    if verbatim {
        roff.control("fi", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_by_their_headings() {
        let text = "Examples:\n  Do this:\n    soci x: y\n\nExit status: 0 success.";
        let expected = [("Examples", "\n  Do this:\n    soci x: y\n\n"), ("Exit status", "0 success.\n")];
        assert_eq!(sections(text), expected.map(|(heading, body)| (heading, body.to_owned())));
        assert_eq!(sections("So it is."), [("Notes", "So it is.\n".to_owned())]);
        assert_eq!(sections(""), []);
    }

    #[test]
    fn tables_stay_as_they_are() {
        let mut roff = Roff::new();
        prose(&mut roff, "One\ntwo:\n  a  b\n  .c\n\n.three");
        let text = roff.to_roff();
        assert_eq!(text.matches(".nf\n").count(), 1);
        assert!(text.contains("One\ntwo:\n.nf\n  a  b\n  .c\n.fi\n.PP\n\\&.three\n"), "{text}");
    }
}
