//! `dpr stop`: has the daemon end, and takes away what a killed one has left.

use crate::cli::StopArgs;
use crate::config::{Config, Defaults};
use crate::control::client::{ask, process_at};
use crate::control::protocol::{Request, Response};
use crate::dataplane;
use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Between two looks at how far the daemon is, whole seconds and a part.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Stops the daemon and waits until its process has ended; without one, removes what a killed daemon left.
///
/// # Errors
/// The daemon may not be asked, or needs longer than `--timeout`, or what is left cannot be removed.
pub(crate) fn run(args: &StopArgs) -> anyhow::Result<()> {
    let socket = &args.socket.socket;
    let Some(daemon) = process_at(socket)? else { return clear_away(args) };
    ask(socket, &Request::Stop { at_once: args.now })?;
    let limit = Duration::from_secs(args.timeout_s.into());
    let (began, mut before) = (Instant::now(), None);
    while !has_ended(&daemon)? {
        // It does not answer any more when it gives the host back.
        let open = match ask(socket, &Request::Status) {
            Ok(Response::Status(status)) => Some(status.open_connections),
            _ => None,
        };
        if began.elapsed() >= limit {
            bail!(
                "the daemon has not ended within {} s, and goes on doing so{}; `dpr stop --now` does not wait for connections",
                args.timeout_s,
                open.map_or_else(String::new, |open| format!(" with {open} open connections"))
            );
        }
        if !args.json && open.is_some() && open != before {
            crate::print(&format!("draining, {} open connections\n", open.unwrap_or_default()))?;
        }
        before = open.or(before);
    }
    said(args, "stopped", "the daemon has ended; the host is as it was before\n")
}

fn clear_away(args: &StopArgs) -> anyhow::Result<()> {
    let config = match Config::load(&args.config, &Defaults::of_this_host()) {
        Ok(config) => config,
        Err(error) => bail!(
            "no daemon is running at {}, and without a configuration nobody knows what one may have left: {error}",
            args.socket.socket.display()
        ),
    };
    let removed = dataplane::remove_leftovers(&config.pin_directory, config.delivery_ranges)
        .context("removing what a killed daemon left")?;
    match removed {
        true => said(args, "removed", "no daemon was running; what a killed one had left is removed\n"),
        false => said(args, "nothing", "no daemon was running, and nothing was left of one\n"),
    }
}

fn said(args: &StopArgs, word: &str, text: &str) -> anyhow::Result<()> {
    if args.json { crate::print(&format!("{{\"done\":\"{word}\"}}\n")) } else { crate::print(text) }
}

/// Waits for a moment, or until the process has ended.
fn has_ended(process: &OwnedFd) -> anyhow::Result<bool> {
    let ready = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&LOOK_EVERY));
    Ok(ready.context("waiting for the daemon")? > 0)
}
