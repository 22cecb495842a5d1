//! The log: to standard error, for people or for programs.

use crate::cli::{LogArgs, LogFormat};
use anyhow::{Context as _, anyhow};
use std::io::IsTerminal as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// A running log, whose filter can be changed.
#[derive(Debug)]
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// Whether command line or environment set the filter, which the configuration does not change then.
    is_fixed: bool,
}

impl Log {
    /// Starts the log; `configured` is the configuration's filter.
    ///
    /// # Errors
    /// The command line's filter makes no sense, or there is a log already.
    pub(crate) fn start(args: &LogArgs, configured: &str) -> anyhow::Result<Self> {
        let directives = args.log_level.as_deref().unwrap_or(configured);
        let filter = EnvFilter::try_new(directives)
            .with_context(|| format!("--log-level or DPR_LOG is {directives:?}, which is no log filter"))?;
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        let lines = match args.log_format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().context("starting the log")?;
        Ok(Self { filter: handle, is_fixed: args.log_level.is_some() })
    }

    /// Changes the filter to the configuration's, unless command line or environment set it.
    ///
    /// # Errors
    /// The filter makes no sense, which a configuration's never does.
    pub(crate) fn set_filter(&self, configured: &str) -> anyhow::Result<()> {
        if self.is_fixed {
            return Ok(());
        }
        let filter = EnvFilter::try_new(configured)?;
        self.filter.reload(filter).map_err(|error| anyhow!("changing the log filter: {error}"))
    }
}
