//! `dpr`: one binary on every server of a cluster that serves HTTP and is also the load balancer.
//!
//! This crate composes the pure crates with sockets, files, threads and the clock; it decides nothing about packets.
//! Start reading at `app.rs` (how a node is put together) and `event_loop.rs` (how it works).

mod app;
mod bench;
mod check;
mod cli;
mod clock;
mod cluster_link;
mod config;
mod control;
mod dataplane;
mod demo;
mod dns;
mod dns_command;
mod event_loop;
mod explain;
mod foreign_sockets;
mod gossip_socket;
mod http;
mod incarnation;
mod kept_file;
mod key_file;
mod load_sampler;
mod logging;
mod orders;
mod path_mtu;
mod reach;
mod render;
mod server_probes;
mod service_manager;
mod signals;
mod simulate;
mod source_probes;
mod stop;

use anyhow::bail;
use clap::Parser as _;
use cli::{Cli, Command, ConnsArgs, LoadOverride, OverrideLoadArgs, StatusArgs};
use control::client::ask;
use control::protocol::{Request, Response};
use std::io::Write as _;
use std::process::ExitCode;

/// Starts no thread and no runtime: the demo has to enter a user namespace while the process has one thread.
fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dpr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(Cli { command, log }: Cli) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => app::run(&args, &log)?,
        Command::Status(args) => status(&args)?,
        Command::Conns(args) => conns(&args)?,
        Command::Dns(command) => dns_command::run(&command)?,
        Command::Explain(args) => explain::run(&args)?,
        Command::Drain(args) => orders::drain(&args)?,
        Command::Undrain(args) => orders::undrain(&args)?,
        Command::Forget(args) => orders::forget(&args)?,
        Command::Takeover(args) => orders::takeover(&args)?,
        Command::Stop(args) => stop::run(&args)?,
        Command::Check(args) => return check::run(&args),
        Command::Demo(args) => return demo::run(&args),
        Command::Simulate(args) => print(&simulate::run(&args)?)?,
        Command::Bench(command) => bench::run(&command)?,
        Command::OverrideLoad(args) => override_load(&args)?,
        Command::ConfigDoc => print(&config::markdown())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let Response::Status(status) = ask(&args.socket.socket, &Request::Status)? else { bail!(UNEXPECTED) };
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&status)?)),
        false => print(&render::status(&status)),
    }
}

fn conns(args: &ConnsArgs) -> anyhow::Result<()> {
    let request = Request::Conns { limit: args.limit };
    let Response::Conns(connections) = ask(&args.socket.socket, &request)? else { bail!(UNEXPECTED) };
    if !args.json {
        return print(&render::connections(&connections));
    }
    let lines = connections.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn override_load(args: &OverrideLoadArgs) -> anyhow::Result<()> {
    let LoadOverride(permille) = args.load;
    match ask(&args.socket.socket, &Request::OverrideLoad { permille })? {
        Response::Done => Ok(()),
        _ => bail!(UNEXPECTED),
    }
}

const UNEXPECTED: &str = "the daemon answered something else; is it of another version?";

/// Writes to standard output; whoever closed the pipe has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
