//! How much processor time the machine spent on packets: this process's, and what the kernel did for it elsewhere.
//!
//! Source, director and sink are of this process or of the kernel. Between veth pairs, the kernel handles a packet's
//! arrival (softirq) at once, on the thread whose system call sent it, and that thread pays; when there is too much of
//! it, the kernel's own threads `ksoftirqd/N` take over. So the process's time, system and softirq included, and that
//! of `ksoftirqd` are all there is. Other programs on the machine are no part of it, but those that use the network at
//! the same time add to `ksoftirqd`.
//!
//! Kernels that account for interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`) take softirq time off the thread; there
//! `/proc/stat` has it, for the whole machine.

use anyhow::Context as _;
use dpr_host::{NetNamespace, Netlink};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::iter::repeat_with;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Processor time spent so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessorTime {
    /// In all.
    pub(super) total: Duration,
    /// By the data plane's thread, system calls included.
    pub(super) data_plane: Duration,
}

/// What reads it.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// Process ids of `ksoftirqd`; none are seen from inside a container.
    kernel_threads: Vec<u32>,
    softirqs_apart: bool,
}

impl Meter {
    /// Looks how this kernel accounts.
    pub(super) fn new() -> anyhow::Result<Self> {
        let softirqs_apart = softirqs_are_apart().context("finding out who is charged for softirqs")?;
        Ok(Self { kernel_threads: kernel_threads()?, softirqs_apart })
    }

    /// How this kernel accounts, for people.
    pub(super) fn describe(&self) -> &'static str {
        match (self.softirqs_apart, self.kernel_threads.is_empty()) {
            (true, _) => "this process and the machine's softirqs",
            (false, false) => "this process, softirqs included, and ksoftirqd",
            (false, true) => "this process, softirqs included; ksoftirqd cannot be seen from here",
        }
    }

    /// Reads it; `others` are processes that belong to what is measured, besides this one.
    pub(super) fn read(&self, others: &[u32]) -> anyhow::Result<ProcessorTime> {
        let mut total = clock(ClockId::ProcessCPUTime);
        for id in others {
            total += threads(&format!("/proc/{id}/task"), |_| true)?;
        }
        for id in &self.kernel_threads {
            total += run_time(&format!("/proc/{id}/schedstat"))?;
        }
        if self.softirqs_apart {
            total += softirq_time()?;
        }
        Ok(ProcessorTime { total, data_plane: data_plane_time()? })
    }
}

/// A thread that opens connections to itself is on the processor all the time, most of it with packets that arrive; if its clock says
/// much less, somebody else is charged. On a busy machine it waits for its turn as well, so only the least disturbed bursts
/// count.
fn softirqs_are_apart() -> anyhow::Result<bool> {
    const BURSTS: usize = 101;
    let mut shares = NetNamespace::create()?.enter(|| {
        let mut netlink = Netlink::open()?;
        let loopback = netlink.link_by_name("lo")?.context("a namespace has a loopback interface")?;
        netlink.set_up(loopback.index)?;
        repeat_with(share_of_burst).take(BURSTS).collect::<anyhow::Result<Vec<f64>>>()
    })??;
    shares.sort_by(f64::total_cmp);
    Ok(shares[BURSTS * 9 / 10] < 0.75)
}

/// How much of its time a thread is charged with that opens some connections, one after the other.
fn share_of_burst() -> anyhow::Result<f64> {
    const CONNECTIONS: usize = 16;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = listener.local_addr()?;
    let (began, before) = (Instant::now(), clock(ClockId::ThreadCPUTime));
    for _ in 0..CONNECTIONS {
        TcpStream::connect(target)?;
    }
    let charged = clock(ClockId::ThreadCPUTime).saturating_sub(before);
    Ok(charged.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9))
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn kernel_threads() -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("/proc")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    Ok(ids.filter(|id| name(id).starts_with("ksoftirqd/")).collect())
}

fn data_plane_time() -> anyhow::Result<Duration> {
    threads("/proc/self/task", |name| name == crate::dataplane::THREAD)
}

/// What the threads of a process took, those with a name that is `wanted`.
fn threads(tasks: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
    let mut time = Duration::ZERO;
    for task in fs::read_dir(tasks).with_context(|| tasks.to_owned())?.flatten() {
        let directory = task.path();
        // A thread may end while it is looked at.
        let Ok(name) = fs::read_to_string(directory.join("comm")) else { continue };
        if wanted(name.trim_end()) {
            time += run_time(&directory.join("schedstat").to_string_lossy())?;
        }
    }
    Ok(time)
}

/// The first figure of a `schedstat` (`Documentation/scheduler/sched-stats.rst`): nanoseconds on a processor.
fn run_time(file: &str) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let nanos = text.split_whitespace().next().and_then(|figure| figure.parse().ok());
    Ok(Duration::from_nanos(nanos.with_context(|| format!("{file}: no figure in {text:?}"))?))
}

/// Hard and soft interrupts of all processors, in ticks of 10 ms (`proc(5)`, `USER_HZ`).
fn softirq_time() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = interrupt_ticks(&text).context("/proc/stat has no line for all processors")?;
    Ok(Duration::from_millis(ticks * 10))
}

fn interrupt_ticks(stat: &str) -> Option<u64> {
    let figures: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().flat_map(str::parse).collect();
    Some(figures.get(5)? + figures.get(6)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_the_sixth_and_seventh_figure_of_all_processors() {
        let stat = "cpu  100 0 200 5000 7 3 40 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";

        assert_eq!(interrupt_ticks(stat), Some(43));
        assert_eq!(interrupt_ticks("cpu0 1 2\n"), None);
    }
}
