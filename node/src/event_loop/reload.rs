//! SIGHUP: the configuration is read again, and what can change at once does.

use crate::config::{Config, Defaults, TakesEffect};
use crate::key_file;
use crate::logging::Log;
use anyhow::Context as _;
use dpr_load_gossip::Keyring;
use std::path::PathBuf;

/// What is needed to read the configuration again.
#[derive(Debug)]
pub(crate) struct Reloader {
    file: PathBuf,
    defaults: Defaults,
    log: Log,
    /// As the daemon was started; what differs from it in keys that need a restart is not in force.
    at_start: Config,
    /// As the file was read last.
    latest: Config,
}

/// A configuration that was read again, and its keys.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// The whole of it; only some of it can come into force.
    pub(super) config: Config,
    /// Keys of its key file.
    pub(super) keyring: Keyring,
}

impl Reloader {
    /// A reloader of `file`, which was read as `config`.
    pub(crate) fn new(file: PathBuf, defaults: Defaults, log: Log, config: &Config) -> Self {
        Self { file, defaults, log, at_start: config.clone(), latest: config.clone() }
    }

    /// Reads the file again and logs what changed.
    ///
    /// # Errors
    /// The file or its key file has mistakes; then nothing changes.
    pub(super) fn reload(&mut self) -> anyhow::Result<Reloaded> {
        let config = Config::load(&self.file, &self.defaults)?;
        let keyring = key_file::read(config.gossip.key_file.as_deref())?;
        self.log.set_filter(&config.log_filter).context("the log's filter")?;
        for change in self.latest.changes(&config) {
            if change.takes_effect == TakesEffect::OnReload {
                tracing::info!(key = change.key, "changed and in force");
            }
        }
        for change in self.at_start.changes(&config) {
            if change.takes_effect == TakesEffect::OnRestart {
                tracing::warn!(key = change.key, "changed, but needs a restart to come into force");
            }
        }
        tracing::info!(file = %self.file.display(), "the configuration was read again");
        self.latest = config.clone();
        Ok(Reloaded { config, keyring })
    }
}
