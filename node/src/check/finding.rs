//! What a check finds, and how people read it.

use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// `dpr run` would fail, or packets would get lost.
    Error,
    /// It works, but not as well or as safely as it could.
    Warning,
    /// Good to know.
    Info,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What it is about.
    pub(super) subject: String,
    /// What is wrong, or the fact.
    pub(super) problem: String,
    /// The command or the change that mends it.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn error(
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Error, subject, problem, Some(mend.into()))
    }

    pub(super) fn warning(
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, subject, problem, Some(mend.into()))
    }

    pub(super) fn info(subject: impl Into<String>, fact: impl Into<String>) -> Self {
        Self::new(Severity::Info, subject, fact, None)
    }

    fn new(
        severity: Severity,
        subject: impl Into<String>,
        problem: impl Into<String>,
        mend: Option<String>,
    ) -> Self {
        Self { severity, subject: subject.into(), problem: problem.into(), mend }
    }
}

/// All findings as text, with a last line that sums them up.
pub(super) fn render(file: &Path, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let _ = writeln!(text, "{word}: {}: {}", finding.subject, finding.problem);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "  mend: {mend}");
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => writeln!(text, "{}: all is well", file.display()),
        (0, warnings) => writeln!(text, "{}: it will work; warnings: {warnings}", file.display()),
        (errors, warnings) => writeln!(text, "{}: errors: {errors}, warnings: {warnings}", file.display()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_with_what_mends_them_and_a_sum() {
        let findings = [Finding::error("port 80", "taken", "free it"), Finding::info("MTU", "1500")];

        let text = render(Path::new("a.toml"), &findings);

        assert_eq!(
            text,
            "error: port 80: taken\n  mend: free it\ninfo: MTU: 1500\na.toml: errors: 1, warnings: 0\n"
        );
        assert!(render(Path::new("a.toml"), &findings[1..]).ends_with("all is well\n"));
    }
}
