//! `dpr dns`: what the cluster's DNS names, and which addresses it must not name.

use crate::cli::{DnsCommand, StatusArgs};
use crate::control::client::ask;
use crate::control::protocol::{Request, Response};
use anyhow::bail;

/// Asks or tells the daemon.
///
/// # Errors
/// No daemon is there, or it refuses.
pub(crate) fn run(command: &DnsCommand) -> anyhow::Result<()> {
    let (args, excluded) = match command {
        DnsCommand::Show(args) => return show(args),
        DnsCommand::Exclude(args) => (args, true),
        DnsCommand::Include(args) => (args, false),
    };
    match ask(&args.socket.socket, &Request::Exclude { address: args.address, excluded })? {
        Response::Done => Ok(()),
        _ => bail!(crate::UNEXPECTED),
    }
}

fn show(args: &StatusArgs) -> anyhow::Result<()> {
    let Response::Status(status) = ask(&args.socket.socket, &Request::Status)? else {
        bail!(crate::UNEXPECTED)
    };
    if args.json {
        let value = serde_json::json!({ "dns": status.dns, "exclusions": status.exclusions });
        return crate::print(&format!("{}\n", serde_json::to_string_pretty(&value)?));
    }
    crate::print(&crate::render::dns(&status))
}
