//! Files that the configuration names.

use super::finding::Finding;
use crate::config::{Config, Server};
use crate::http::Directory;
use crate::key_file;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Looks at every file.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = keys(config.gossip.key_file.as_deref());
    if let Server::Files(root) = &config.server {
        findings.extend(site(root));
    }
    findings
}

/// One line that makes a key which nobody else can read.
fn key_command(path: &Path) -> String {
    format!(
        "(umask 077; od -An -tx1 -N32 /dev/urandom | tr -d ' \\n' > {}), then copy it to every node",
        path.display()
    )
}

fn keys(path: Option<&Path>) -> Vec<Finding> {
    let Some(path) = path else {
        let mend = format!("{}, and set gossip.key-file", key_command(Path::new("/etc/dpr/gossip.key")));
        let problem = "load reports are not authenticated: anybody on the network can pretend to be a node";
        return vec![Finding::warning("gossip.key-file", problem, mend)];
    };
    if let Err(error) = key_file::read(Some(path)) {
        return vec![Finding::error("gossip.key-file", format!("{error:#}"), key_command(path))];
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let problem = format!("others can read {}", path.display());
            vec![Finding::warning("gossip.key-file", problem, format!("chmod 600 {}", path.display()))]
        }
        _ => vec![],
    }
}

fn site(root: &Path) -> Vec<Finding> {
    if let Err(error) = Directory::open(root) {
        let problem = format!("{} cannot be served: {error}", root.display());
        return vec![Finding::error("http.root", problem, format!("mkdir -p {}", root.display()))];
    }
    if root.join("index.html").is_file() {
        return vec![];
    }
    let problem = format!("{} has no index.html, so `/` is not found", root.display());
    vec![Finding::warning("http.root", problem, format!("put an index.html into {}", root.display()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_reported_with_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "5a".repeat(32)).unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            keys(Some(&path))
        };

        assert_eq!(with_mode(0o644)[0].mend, Some(format!("chmod 600 {}", path.display())));
        assert_eq!(with_mode(0o600), []);
    }

    #[test]
    fn absent_keys_and_sites_are_found() {
        let directory = tempfile::tempdir().unwrap();

        assert_eq!(keys(Some(&directory.path().join("none"))).len(), 1);
        assert_eq!(keys(None).len(), 1);
        assert_eq!(site(&directory.path().join("none")).len(), 1);
        assert!(site(directory.path())[0].problem.contains("index.html"));
    }
}
