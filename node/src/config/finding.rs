//! What is wrong with a configuration file: where, why, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Bytes of the file that are wrong.
    pub(crate) at: Range<usize>,
    /// What is wrong with them.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) instead: String,
}

impl Finding {
    /// A mistake at `at`.
    pub(crate) fn new(at: Range<usize>, problem: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { at, problem: problem.into(), instead: instead.into() }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {max} bytes, so it is no configuration file", file.display())]
    TooLarge {
        /// Which file.
        file: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
    /// The file is wrong.
    #[error("{0}")]
    Wrong(Mistakes),
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistakes {
    /// Which file.
    pub(crate) file: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// What is wrong, in the order of the text; never empty.
    pub(crate) findings: Vec<Finding>,
}

/// More mistakes than this are counted, not shown.
const SHOWN_MAX: usize = 20;

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, finding) in self.findings.iter().take(SHOWN_MAX).enumerate() {
            if count > 0 {
                f.write_str("\n\n")?;
            }
            self.show(f, finding)?;
        }
        match self.findings.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n\n… and {more} more"),
        }
    }
}

impl Mistakes {
    fn show(&self, f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
        let place = Place::find(&self.text, &finding.at);
        let gutter = place.line.to_string().len();
        writeln!(f, "{}", printable(&finding.problem))?;
        writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file.display(), place.line, place.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {}", place.line, place.excerpt)?;
        writeln!(f, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(place.width), indent = place.column - 1)?;
        write!(f, "{:gutter$} = {}", "", printable(&finding.instead))
    }
}

/// A range of bytes as people find it in an editor.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// Characters to underline, at least 1.
    width: usize,
    /// The line, without control characters.
    excerpt: String,
}

impl Place {
    fn find(text: &str, at: &Range<usize>) -> Self {
        let start = floor_char_boundary(text, at.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let end = floor_char_boundary(text, at.end).clamp(start, line_end);
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            excerpt: printable(text[line_start..line_end].trim_end()),
        }
    }
}

/// A terminal must not act on what a file contains, and a tab must not move the caret.
fn visible(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_caret_below() {
        let text = "[node]\n\twieght = 10\n".to_owned();
        let findings = vec![Finding::new(8..14, "there is no key `wieght` in [node]", "write `weight`")];

        let shown = Mistakes { file: "dpr.toml".into(), text, findings }.to_string();

        let expected = "there is no key `wieght` in [node]\n \
                        --> dpr.toml:2:2\n  \
                        |\n\
                        2 |  wieght = 10\n  \
                        |  ^^^^^^\n  \
                        = write `weight`";
        assert_eq!(shown, expected);
    }

    #[test]
    fn any_range_finds_a_place() {
        for text in ["", "é\né", "\n\n"] {
            for start in 0..8 {
                for end in 0..8 {
                    assert!(Place::find(text, &(start..end)).width >= 1);
                }
            }
        }
    }

    #[test]
    fn mistakes_beyond_the_first_twenty_are_counted() {
        let findings = vec![Finding::new(0..1, "wrong", "right"); 23];

        let shown = Mistakes { file: "f".into(), text: "x".into(), findings }.to_string();

        assert_eq!(shown.matches("wrong").count(), SHOWN_MAX);
        assert!(shown.ends_with("and 3 more"));
    }
}
