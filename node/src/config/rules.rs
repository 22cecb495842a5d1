//! What has to hold for a file of any text; also used by the fuzz target.

use super::{Config, ConfigError, Defaults};
use std::path::Path;

/// Reads `text`: it is a configuration, and the same one every time; or every mistake is shown where it is, in words
/// that a terminal can show.
///
/// # Panics
/// When the rule is broken.
pub(crate) fn check(text: &str) {
    let defaults = Defaults { host_name: "web1".to_owned(), processors: 4 };
    let parse = || Config::parse(Path::new("/etc/dpr/dpr.toml"), text, &defaults);
    match parse() {
        Ok(config) => {
            assert!(config.changes(&config).is_empty(), "a configuration differs from itself");
            let again = parse().expect("it was a configuration before");
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            assert!(!config.services.is_empty());
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.chars().all(|character| character == '\n' || !character.is_control()), "{said:?}");
            let ConfigError::Wrong(mistakes) = error else { panic!("{said}") };
            assert!(!mistakes.findings.is_empty());
            for finding in &mistakes.findings {
                assert!(finding.at.start <= finding.at.end && finding.at.end <= text.len(), "{finding:?}");
                assert!(!finding.problem.is_empty() && !finding.instead.is_empty(), "{finding:?}");
            }
        }
    }
}
