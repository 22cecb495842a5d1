//! `cargo xtask dns-bench`: what an answer costs, beside Knot DNS, asked by dnsperf.
//!
//! Everything runs in a network namespace of its own, in rounds in which each server has its turn. What is compared is
//! answers per second of the server's processor time, and latencies at a rate that both can answer: asker and servers
//! share the machine, so answers per second alone would say how they were scheduled.

use crate::command::{cargo, root, run as run_command};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Arguments of `cargo xtask dns-bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Seconds of each of a round's four measurements.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// Queries per second for latencies.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// The work itself, in the namespace.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Servers' addresses; the first one is dpr's.
const ADDRESSES: [&str; 2] = ["10.88.0.1", "10.88.0.2"];
const NAMES: [&str; 2] = ["dpr", "knotd"];
/// Time for a server to start.
const START: Duration = Duration::from_secs(3);
/// Clock ticks per second of /proc, sysconf(3) `_SC_CLK_TCK` on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// Builds, and measures in a new namespace.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.inside {
        return measure(arguments);
    }
    run_command(&mut cargo(&["build", "--release", "--package", "dpr"]))?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--"]).arg(std::env::current_exe()?).args(["dns-bench", "--inside"]);
    inside.args(["--rounds", &arguments.rounds.to_string(), "--seconds", &arguments.seconds.to_string()]);
    inside.args(["--rate", &arguments.rate.to_string()]);
    run_command(&mut inside)
}

/// A server that ends with its value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One server's figures of one round.
struct Sample {
    answers_per_s: f64,
    answers_per_processor_s: f64,
    p99_us: f64,
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    network()?;
    let directory = std::env::temp_dir().join(format!("dpr-dns-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let outcome = measure_in(&directory, arguments);
    fs::remove_dir_all(&directory)?;
    outcome
}

fn measure_in(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let servers = [start_dpr(directory)?, start_knotd(directory)?];
    sleep(START);
    let queries = directory.join("queries");
    fs::write(&queries, "www.cluster.test A\n")?;
    let mut samples: [Vec<Sample>; 2] = [vec![], vec![]];
    for round in 0..arguments.rounds {
        for turn in 0..2 {
            let nth = usize::from(round + turn) % 2;
            samples[nth].push(sample(&servers[nth], ADDRESSES[nth], &queries, arguments)?);
        }
    }
    println!("{:6} {:>11} {:>25} {:>8}", "", "answers/s", "answers/s of processor", "p99, us");
    for (name, samples) in NAMES.iter().zip(&samples) {
        let median = |value: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let (speed, cost) = (median(|one| one.answers_per_s), median(|one| one.answers_per_processor_s));
        println!("{name:6} {speed:>11.0} {cost:>25.0} {:>8.0}", median(|one| one.p99_us));
    }
    Ok(())
}

/// Addresses for the servers; what is sent to them goes over the loopback interface.
fn network() -> anyhow::Result<()> {
    let commands = [
        "link set lo up",
        "link add eth0 type veth peer name eth1",
        "address add 10.88.0.1/24 dev eth0",
        "address add 10.88.0.2/24 dev eth0",
        "link set eth0 up",
        "link set eth1 up",
    ];
    for command in commands {
        run_command(Command::new("ip").args(command.split(' ')))?;
    }
    Ok(())
}

fn start(command: &mut Command) -> anyhow::Result<Server> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Server).with_context(|| format!("starting {command:?}"))
}

/// `dpr` with one node, whose address is named; without limits, which dnsperf alone would exceed.
fn start_dpr(directory: &Path) -> anyhow::Result<Server> {
    let file = directory.join("dpr.toml");
    let text = format!(
        "[node]\naddress = \"{}\"\n[[service]]\n[control]\nsocket = \"control.sock\"\n[dns]\nzone = \
         \"cluster.test\"\nns = {{ ns1 = [\"{}\"] }}\nrate-limit = 0\n",
        ADDRESSES[0], ADDRESSES[0]
    );
    fs::write(&file, text)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    start(Command::new(target.join("release/dpr")).args(["run", "--config"]).arg(&file))
}

/// Knot DNS with the same answer.
fn start_knotd(directory: &Path) -> anyhow::Result<Server> {
    let zone = "@ SOA ns1 hostmaster 1 1200 180 1209600 60\n@ NS ns1\nns1 A 10.88.0.2\nwww 60 A 10.88.0.1\n";
    fs::write(directory.join("cluster.test.zone"), format!("$ORIGIN cluster.test.\n$TTL 3600\n{zone}"))?;
    let place = directory.display();
    let text = format!(
        "server:\n  rundir: {place}\n  listen: {}@53\n  udp-workers: 2\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: {place}\ntemplate:\n  - id: default\n    storage: {place}\nzone:\n  - domain: \
         cluster.test\n    file: cluster.test.zone\n",
        ADDRESSES[1]
    );
    let file = directory.join("knot.conf");
    fs::write(&file, text)?;
    start(Command::new("knotd").arg("--config").arg(&file))
}

fn sample(server: &Server, address: &str, queries: &Path, arguments: &Arguments) -> anyhow::Result<Sample> {
    let seconds = arguments.seconds.to_string();
    let ask = |more: &[&str]| {
        let mut command = Command::new("dnsperf");
        command.args(["-s", address, "-l", &seconds, "-c", "8", "-d"]).arg(queries).args(more);
        let output = command.output().context("starting dnsperf")?;
        if !output.status.success() {
            bail!("dnsperf failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let before = processor_s(server)?;
    let said = ask(&[])?;
    let used_s = processor_s(server)? - before;
    let completed = figure(&said, "Queries completed:")?;
    let paced = ask(&["-Q", &arguments.rate.to_string(), "-v"])?;
    Ok(Sample {
        answers_per_s: figure(&said, "Queries per second:")?,
        answers_per_processor_s: completed / used_s,
        p99_us: percentile_99_us(&paced)?,
    })
}

/// Processor time of a process so far, seconds.
fn processor_s(Server(child): &Server) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).context("the server ended")?;
    // Behind the name, which may have spaces: utime and stime are fields 14 and 15, proc(5).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |nth: usize| fields.get(nth).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS_PER_S)
}

/// The number behind a label of dnsperf's report.
fn figure(said: &str, label: &str) -> anyhow::Result<f64> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("dnsperf does not say {label}"))
}

/// Of the latencies that `dnsperf -v` writes behind every answer, in seconds.
fn percentile_99_us(said: &str) -> anyhow::Result<f64> {
    let answers = said.lines().filter(|line| line.starts_with("> "));
    let mut latencies: Vec<f64> =
        answers.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).collect();
    latencies.sort_by(f64::total_cmp);
    let nth = latencies.len() * 99 / 100;
    latencies.get(nth).map(|seconds| seconds * 1e6).context("dnsperf wrote no latencies")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_out_of_what_dnsperf_says() {
        let said = "Statistics:\n\n  Queries sent:         1000\n  Queries completed:    998 (99.80%)\n\
                    \x20 Queries per second:   49876.500000\n";
        assert_eq!(figure(said, "Queries completed:").unwrap(), 998.0);
        assert_eq!(figure(said, "Queries per second:").unwrap(), 49_876.5);
        assert!(figure(said, "Nothing:").is_err());
        let verbose: String =
            (1..=200).map(|nth| format!("> NOERROR www.cluster.test A 0.{nth:06}\n")).collect();
        assert!((percentile_99_us(&verbose).unwrap() - 199.0).abs() < 0.01);
    }
}
