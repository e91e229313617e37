//! Findings, and how they are shown.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something works worse than it could, or may be intended.
    Warning,
    /// Something does not work, or is not lazy.
    Problem,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The daemon's configuration, with mirrors.
    Configuration,
    /// The root directory.
    Root,
    /// The kernel.
    Kernel,
    /// The daemon.
    Daemon,
    /// containerd.
    Containerd,
    /// Registries and images.
    Registry,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// A name for programs, which does not change.
    pub id: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn advise(&mut self, advice: impl Into<String>) -> &mut Self {
        self.advice = Some(one_line(&advice.into()));
        self
    }
}

/// All that was found. `Display` gives the text for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In an order in which a cause stands before what follows from it.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst finding, unless all is well; of equals the first.
    #[must_use]
    pub fn worst(&self) -> Option<&Finding> {
        let bad = self.findings.iter().filter(|finding| finding.verdict >= Verdict::Warning);
        // `max_by_key` gives the last of equals.
        bad.rev().max_by_key(|finding| finding.verdict)
    }

    /// As JSON: the worst finding, and all of them.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "verdict": self.worst().map_or(Verdict::Ok, |finding| finding.verdict),
            "worst": self.worst(),
            "findings": self.findings,
        })
    }

    pub(super) fn ok(&mut self, subject: Subject, id: &'static str, message: impl Into<String>) {
        self.add(subject, id, Verdict::Ok, message.into());
    }

    pub(super) fn note(
        &mut self,
        subject: Subject,
        id: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(subject, id, Verdict::Note, message.into())
    }

    pub(super) fn warning(
        &mut self,
        subject: Subject,
        id: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(subject, id, Verdict::Warning, message.into())
    }

    pub(super) fn problem(
        &mut self,
        subject: Subject,
        id: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(subject, id, Verdict::Problem, message.into())
    }

    fn add(&mut self, subject: Subject, id: &'static str, verdict: Verdict, message: String) -> &mut Finding {
        let at = self.findings.len();
        self.findings.push(Finding { subject, id, verdict, message: one_line(&message), advice: None });
        &mut self.findings[at]
    }
}

/// Messages may hold the words of strangers: a registry's, a file's. They stay one line, and do nothing to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "the daemon's configuration",
            Self::Root => "root directory",
            Self::Kernel => "kernel",
            Self::Daemon => "daemon",
            Self::Containerd => "containerd",
            Self::Registry => "registry",
        })
    }
}

impl Verdict {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worst() {
            Some(worst) => {
                writeln!(f, "{}: {}", worst.verdict.mark(), worst.message)?;
                let bad = self.findings.iter().filter(|finding| finding.verdict >= Verdict::Warning).count();
                match bad {
                    1 => writeln!(f, "Nothing else is wrong.")?,
                    _ => writeln!(f, "This and {} more below.", bad - 1)?,
                }
            }
            None => {
                writeln!(f, "all is well: nothing was found that keeps images with an index from being lazy")?
            }
        }
        let mut subject = None;
        for finding in &self.findings {
            if subject.replace(finding.subject) != Some(finding.subject) {
                writeln!(f, "\n{}", finding.subject)?;
            }
            writeln!(f, "  {:<9}{}", finding.verdict.mark(), finding.message)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "           {advice}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_worst_finding_and_of_equals_the_first() {
        let mut report = Report::default();
        report.ok(Subject::Root, "a", "fine");
        report.note(Subject::Root, "b", "known");
        assert!(report.worst().is_none() && report.to_string().starts_with("all is well: "));
        report.warning(Subject::Kernel, "c", "slow");
        report.problem(Subject::Daemon, "d", "dead\nand\u{1b}[2J gone").advise("Start it.");
        report.problem(Subject::Containerd, "e", "wrong");
        let text = report.to_string();
        assert_eq!(text.lines().next(), Some("problem: dead and [2J gone"));
        assert!(text.contains("  problem  wrong") && text.contains("           Start it."), "{text}");
        let json = report.to_json();
        assert_eq!((&json["verdict"], &json["worst"]["id"]), (&"problem".into(), &"d".into()));
        assert_eq!(json["findings"].as_array().map(Vec::len), Some(5));
    }
}
