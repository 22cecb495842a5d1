//! The command line: what can be asked, in words that teach.
//!
//! Exit codes: 0 for success, 1 for failure (and for `check` with errors), 2 for a command line that makes no sense.

use crate::simulate::SimulateArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use dpr_model::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Distributed Packet Rewriting: every server is also the load balancer.
#[derive(Debug, Parser)]
#[command(name = "dpr", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the log looks; it goes to standard error.
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  dpr demo                               see a cluster of four nodes work, without configuration
  dpr demo --skew none                   the same with clients that ask the cluster's DNS
  dpr check --config /etc/dpr/dpr.toml   is the file right, and can this host follow it?
  dpr run --config /etc/dpr/dpr.toml     be a node
  dpr status                             this node's view of the cluster
  dpr conns --json | jq .                connections that this node forwards
  dpr explain 198.51.100.7:40000 192.0.2.99:80   who decides about a connection, and who has it
  dpr drain web2 web3 --timeout 600      take two nodes out of service, gently, from any node
  dpr stop                               end this node's daemon, and leave nothing behind
  dpr dns exclude 192.0.2.12             take an attacked address out of DNS, on all nodes
  dpr simulate --interval-ms 100,1000    which policy for which report interval?

The smallest useful configuration:
  [node]
  address = \"192.0.2.11\"
  [[service]]

Exit codes:
  0  success
  1  failure; `check` found an error
  2  wrong command line";

/// Options of the log.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Lines for people, or JSON objects for programs.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// error, warn, info, debug, trace, or filter directives such as "info,dpr::dataplane=debug"; wins over the
    /// configuration's `log.level`.
    #[arg(long, global = true, env = "DPR_LOG", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be a node: balance, serve, report. Ends on SIGTERM or SIGINT, reads its file again on SIGHUP.
    Run(RunArgs),
    /// This node's view of itself and its cluster.
    Status(StatusArgs),
    /// The connection-forwarding table: which connections this node handed to whom.
    Conns(ConnsArgs),
    /// What DNS names; and take an attacked service address out of it, on all nodes at once, and back.
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Why a connection goes where it goes: slot, owner, backups, real server. Any node gives the same answer.
    Explain(ExplainArgs),
    /// Have nodes take no new connections, let open ones finish, give away what others can own. Waits until nothing is left.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Have nodes take new connections again.
    Undrain(UndrainArgs),
    /// A silent node is gone for good: its consent is not asked for any more, its addresses are given up.
    Forget(ForgetArgs),
    /// Have a node own all of a service address: first it gets copies of the connections, then the address. Or give it back.
    #[command(after_help = TAKEOVER_EXAMPLES)]
    Takeover(TakeoverArgs),
    /// Have the daemon of this host end: drain, say goodbye, give the host back. Without a daemon, remove what a killed one
    /// left.
    Stop(StopArgs),
    /// Is the configuration right, and can this host follow it? Names what is missing and the command that mends it.
    Check(CheckArgs),
    /// A whole cluster in namespaces on this machine: skewed clients, real daemons, a node that dies.
    Demo(DemoArgs),
    /// Compares policies on a model of a cluster: response times, balance, share of connections that are forwarded.
    Simulate(SimulateArgs),
    /// What forwarding a packet costs on this machine, in networks of its own.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Set the load that a daemon started with --allow-load-override reports.
    #[command(hide = true)]
    OverrideLoad(OverrideLoadArgs),
    /// Print docs/configuration.md.
    #[command(hide = true)]
    ConfigDoc,
}

/// Arguments of `dpr run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML).
    #[arg(long, short, value_name = "FILE", default_value = "/etc/dpr/dpr.toml")]
    pub(crate) config: PathBuf,
    /// Seconds that open requests and connections get to finish after SIGTERM; ends earlier when none are left.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub(crate) drain_timeout_s: u32,
    /// For tests only: lets `dpr override-load` replace the measured load.
    #[arg(long)]
    pub(crate) allow_load_override: bool,
}

/// Where the daemon is.
#[derive(Args, Clone, Debug)]
pub(crate) struct SocketArgs {
    /// The daemon's control socket (`control.socket` in its configuration).
    #[arg(long, value_name = "PATH", default_value = "/run/dpr/control.sock")]
    pub(crate) socket: PathBuf,
}

/// Arguments of `dpr status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be done with DNS.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Let no node name an address any more. Who knows it already can still use it; resolvers forget it with its TTL.
    Exclude(DnsAddressArgs),
    /// Let all nodes name an address again.
    Include(DnsAddressArgs),
    /// Names with the addresses that they give at the moment, and what is excluded.
    Show(StatusArgs),
}

/// Arguments of `dpr dns exclude` and `dpr dns include`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DnsAddressArgs {
    /// Service address.
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: IpAddr,
    /// Where a daemon of the cluster is; any will do.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

/// Arguments of `dpr conns`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnsArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Print JSON, one object for each connection, instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Connections at most.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) limit: u32,
}

/// Arguments of `dpr explain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// The client's address and port.
    #[arg(value_name = "CLIENT:PORT")]
    pub(crate) client: SocketAddr,
    /// The service address and port.
    #[arg(value_name = "SERVICE:PORT")]
    pub(crate) service: SocketAddr,
    /// Transport protocol.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// Arguments of orders.
#[derive(Args, Clone, Debug)]
pub(crate) struct OrderArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

const DRAIN_EXAMPLES: &str = "\
Examples:
  dpr drain                       this node
  dpr drain web2 web3             two others at once, from any node of the cluster
  dpr drain web2 --timeout 0      do not wait; `dpr drain web2` shows how far it is
  dpr undrain web2 web3           and back

A node that drains goes on doing so until `dpr undrain`, or until its daemon ends.";

/// Arguments of `dpr drain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DrainArgs {
    /// Which nodes.
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
    /// How to say it.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
    /// Seconds to wait until nothing is left; nodes drain on after that, and the exit code is 1. With 0 it does not wait.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) timeout_s: u32,
}

/// Arguments of `dpr undrain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UndrainArgs {
    /// Which nodes.
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
    /// How to say it.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
}

/// Arguments of `dpr stop`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Configuration file (TOML), which says where a killed daemon may have left something.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/dpr/dpr.toml")]
    pub(crate) config: PathBuf,
    /// Do not wait for open requests and connections.
    #[arg(long)]
    pub(crate) now: bool,
    /// Seconds to wait for the daemon's end; it goes on after that, and the exit code is 1.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) timeout_s: u32,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Nodes that are told something.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodesArgs {
    /// Their names, ids or node addresses, as `dpr status` shows them; none means the node whose daemon is asked.
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// Arguments of `dpr forget`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ForgetArgs {
    /// Its name, its id or its node address, as `dpr status` shows them.
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Of which node, and how to say it; any node will do.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
}

const TAKEOVER_EXAMPLES: &str = "\
Examples:
  dpr takeover 192.0.2.99 --to web2               one node decides for all of a shared address
  dpr takeover 192.0.2.98 192.0.2.97 --to web2    two addresses move together, in one map
  dpr takeover 192.0.2.98 --give-back             back to its home; what is shared, back to all

It lasts until it is given back, or until the new owner dies or drains. A service address that is the node address of a
node that lives cannot move: drain that node instead.";

/// Arguments of `dpr takeover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TakeoverArgs {
    /// Service addresses; all move in one map.
    #[arg(value_name = "ADDRESS", required = true, num_args = 1..=crate::orders::ADDRESSES_MAX)]
    pub(crate) addresses: Vec<IpAddr>,
    /// The new owner: its name, its id or its node address, as `dpr status` shows them.
    #[arg(long, value_name = "NODE", required_unless_present = "give_back")]
    pub(crate) to: Option<String>,
    /// Give them back: to the node that they belong to, or what is shared to all.
    #[arg(long, conflicts_with = "to")]
    pub(crate) give_back: bool,
    /// How to say it; any node of the cluster will do.
    #[command(flatten)]
    pub(crate) order: OrderArgs,
    /// Seconds to wait until it is done; it goes on after that, and the exit code is 1.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub(crate) timeout_s: u32,
}

/// Arguments of `dpr check`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Configuration file (TOML).
    #[arg(long, short, value_name = "FILE", default_value = "/etc/dpr/dpr.toml")]
    pub(crate) config: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dpr demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Nodes of the cluster.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub(crate) nodes: u8,
    /// Seconds that the clients work.
    #[arg(long = "duration", value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub(crate) duration_s: u32,
    /// How clients come by addresses: `one`: all share a resolver that goes on naming node 1, the worst that
    /// round-robin DNS can do; `none`: each asks the cluster's own DNS.
    #[arg(long, value_name = "SKEW", default_value = "one", default_missing_value = "one", num_args = 0..=1)]
    pub(crate) skew: Skew,
    /// How directors hand packets to real servers.
    #[arg(long, value_name = "METHOD", default_value = "ipip", value_parser = ["ipip", "gue", "nat", "dr"])]
    pub(crate) method: String,
    /// Give nodes, services and clients IPv6 addresses only.
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Leave the cluster up until Ctrl-C, and say how to enter it.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print one JSON object at the end instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How far the demo's clients are from being spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Skew {
    /// Everybody goes to one node.
    One,
    /// Everybody asks the cluster's DNS.
    None,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Processor time per packet: both data planes, and the kernel's routing and DNAT beside them.
    #[command(long_about = USERSPACE_BENCH, after_help = USERSPACE_BENCH_EXAMPLES)]
    Userspace(UserspaceBenchArgs),
    /// Nanoseconds per packet of the kernel's packet path, and of programs that do as little as can be done.
    #[command(long_about = XDP_BENCH)]
    Xdp(XdpBenchArgs),
    /// Connections, requests and downloads: by a director, by nobody, by nftables, HAProxy and nginx.
    #[command(long_about = HTTP_BENCH, after_help = HTTP_BENCH_EXAMPLES)]
    Http(HttpBenchArgs),
}

const USERSPACE_BENCH: &str = "\
Processor time per packet: both data planes, and the kernel's routing and DNAT beside them.

A source sends data packets of one known TCP connection through a director to a sink, each in a network namespace of
its own, joined by veth pairs. In every round each way has its turn: straight from source to sink, by the user-space
data plane (ipip), by the kernel's programs (ipip; behind the driver, where they are slower), by the kernel's IPv4
forwarding, by nftables DNAT. What is counted is processor time (user, system,
softirq) of this process and of the kernel's threads that handle packets, divided by the packets that reached the
sink. The cost of a way is what it takes beyond the straight way in the same round: one cable more, and the director.
Medians over the rounds are shown. Source and sink cost the same on every way.

Needs the rights to make namespaces and packet sockets; a user namespace will do, but for the programs. Takes about
5 x rounds x slice, at most three minutes. Other programs disturb it by what they do to caches and to ksoftirqd.";

const USERSPACE_BENCH_EXAMPLES: &str = "\
Examples:
  dpr bench userspace                      about half a minute
  dpr bench userspace --payload 64 --json  small packets, for programs to read";

const XDP_BENCH: &str = "\
Nanoseconds per packet of the kernel's packet path, and of programs that do as little as can be done.

The kernel runs its programs on packets of 1, 65,536 and 1,048,576 flows in random order (BPF_PROG_TEST_RUN), a million in
each run. A program in front makes the packets; what it costs is measured in the same round, with an empty program
behind it, and taken off. Medians over the rounds are shown, beside what has been promised; of packets over IPv4 and over IPv6.
Small runs show that it works: with less than 100,000 packets, or one round, the figures say little.

Then packets go from one namespace to another and back, from program to program in the drivers of a veth pair: by the packet path
(ipip, 1,024 known flows), an empty program, the kernel's routing, nftables DNAT. Packets per second
are those of one processor that is source, director and sink at once and does nothing else.

Needs root. Nothing is attached to the host's interfaces. Takes two minutes on a quiet machine, and 1.3 GB of
the kernel's memory.";

const HTTP_BENCH: &str = "\
Connections, requests and downloads: by a director, by nobody, by nftables, HAProxy and nginx.

Clients ask one web server (the built-in one) for files, in namespaces on switches of their own: a new connection for
each kilobyte, a kilobyte again and again on connections that stay, a megabyte again and again. In every round each way
has its turn: straight to the server; over one more machine, whose program only sends on; by a loaded node that hands
all connections to a lighter one (ipip), by the kernel's programs and by the user-space plane; by nftables (DNAT, and
replies back); by HAProxy (mode tcp); by nginx (stream). Shown are what was done in a second, times at the clients, and
processor time (user, system, softirq) of clients, server and what stands between, for each connection, request or
download. All share this machine's processors, so that what costs less is faster. Medians over the rounds.

Needs the rights to make namespaces; a user namespace will do, but for the kernel's programs. What is not installed is
left out. Takes about 21 x rounds x slice. Wants a quiet machine.";

const HTTP_BENCH_EXAMPLES: &str = "\
Examples:
  dpr bench http                                  about two and a half minutes
  dpr bench http --rounds 3 --slice 300 --json    a first look, for programs to read";

/// Arguments of `dpr bench http`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HttpBenchArgs {
    /// Rounds; each has every way and load once.
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u8).range(3..=20))]
    pub(crate) rounds: u8,
    /// How long a way is measured in a round under each load.
    #[arg(long = "slice", value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=5000))]
    pub(crate) slice_ms: u32,
    /// Connections that clients have open at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub(crate) connections: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dpr bench xdp`.
#[derive(Args, Clone, Debug)]
pub(crate) struct XdpBenchArgs {
    /// Rounds; each has every case once.
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(crate) rounds: u8,
    /// Packets in a run; between namespaces half of them.
    #[arg(long, value_name = "COUNT", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    pub(crate) packets: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dpr bench userspace`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UserspaceBenchArgs {
    /// Rounds; each has every way once.
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u8).range(5..=20))]
    pub(crate) rounds: u8,
    /// How long a way is measured in a round.
    #[arg(long = "slice", value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=2000))]
    pub(crate) slice_ms: u32,
    /// Packets per second.
    #[arg(long, value_name = "PACKETS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    pub(crate) rate: u32,
    /// Bytes of data in a packet.
    #[arg(long = "payload", value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u16).range(0..=1440))]
    pub(crate) payload_len: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `dpr override-load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct OverrideLoadArgs {
    /// Load index in permille, or `off` to measure again.
    #[arg(value_name = "PERMILLE|off", value_parser = parse_override)]
    pub(crate) load: LoadOverride,
    /// Where the daemon is.
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

/// A load to report instead of the measured one, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadOverride(pub(crate) Option<u16>);

fn parse_override(text: &str) -> Result<LoadOverride, String> {
    match text {
        "off" => Ok(LoadOverride(None)),
        _ => text
            .parse()
            .map(|permille| LoadOverride(Some(permille)))
            .map_err(|_| "write a number from 0 to 65535, or `off`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_override_is_a_number_or_off() {
        assert_eq!(parse_override("950"), Ok(LoadOverride(Some(950))));
        assert_eq!(parse_override("off"), Ok(LoadOverride(None)));
        assert!(parse_override("-1").is_err());
    }
}
