//! curl on a machine, and what it says about each transfer.

use crate::programs;
use dpr_lab::Machine;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// One run of curl.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The bodies (with `-I`, the heads) of all transfers, one after another.
    pub(crate) output: Vec<u8>,
    /// One for each transfer.
    pub(crate) transfers: Vec<Transfer>,
}

/// One transfer.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// 0 for success; curl's manual page explains the others.
    pub(crate) exit_code: u64,
    /// HTTP status; 0 without a response.
    pub(crate) status: u64,
    /// The server's address, as curl sees it; `None` without a connection.
    pub(crate) remote: Option<IpAddr>,
    /// The client's port.
    pub(crate) local_port: u64,
    /// Connections that it opened; 0 when it used an open one.
    pub(crate) connections: u64,
    /// From the start until the handshake was complete; zero for an open connection.
    pub(crate) connected_after: Duration,
}

/// No transfer of a scenario takes this long, seconds.
const TIME_MAX: &str = "30";

/// Runs curl on `machine`, with arguments that come after the usual ones and win over them.
pub(crate) fn curl(machine: &Machine, arguments: &[&str]) -> Fetched {
    let mut command = programs::command("curl");
    // No configuration and no proxy of whoever runs this; a word about each transfer on standard error.
    command.args(["-q", "--silent", "--noproxy", "*", "--max-time", TIME_MAX]);
    command.args(["--write-out", "%{stderr}%{json}\n"]).args(arguments);
    let output = machine.run(command).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let transfers: Vec<Transfer> = said.lines().map(Transfer::of).collect();
    assert!(!transfers.is_empty(), "curl {arguments:?} made no transfer: {}", output.status);
    Fetched { output: output.stdout, transfers }
}

impl Fetched {
    /// The only transfer.
    pub(crate) fn transfer(&self) -> &Transfer {
        let [transfer] = &self.transfers[..] else { panic!("not one transfer: {:?}", self.transfers) };
        transfer
    }

    /// The output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap()
    }
}

impl Transfer {
    fn of(line: &str) -> Self {
        let said: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let number = |name: &str| said[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
        Self {
            exit_code: number("exitcode"),
            status: number("http_code"),
            remote: said["remote_ip"].as_str().and_then(|address| address.parse().ok()),
            local_port: number("local_port"),
            connections: number("num_connects"),
            connected_after: Duration::from_secs_f64(said["time_connect"].as_f64().unwrap_or_default()),
        }
    }
}
