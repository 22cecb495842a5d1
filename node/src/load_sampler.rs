//! How loaded this node is: figures of the host, of the control group, of sockets and of the built-in server.
//!
//! It measures and judges nothing: weights and the load index are `load-gossip`'s. Reading blocks on `/proc` and, with
//! many connections, on a dump of sockets, so it has a thread of its own that answers one question at a time.

mod cgroup;
mod confinement;
mod counted;
mod proc;
mod sockets;

pub(crate) use sockets::{Door, delivered_to, is_reached};

use crate::config::Service;
use crate::http::{Figures, FiguresNow};
use anyhow::Context as _;
use cgroup::{Cgroup, Quota};
use counted::Connections;
use dpr_director::DeliveryRanges;
use dpr_model::{Capacity, LoadPermille, Metric, MetricSample};
use proc::CpuTicks;
use sockets::Sockets;
use std::collections::{BTreeMap, VecDeque};
use std::fs::read_to_string;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Processor time is averaged over this: shorter shows the clock's ticks, longer shows the past.
const CPU_WINDOW: Duration = Duration::from_secs(1);

/// Readings within [`CPU_WINDOW`] at most.
const CPU_READINGS_MAX: usize = 64;

/// A mean service time of this long counts as full load.
const SERVICE_TIME_FULL: Duration = Duration::from_secs(1);

/// What was measured at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readings {
    /// Metrics that do not depend on the node's configuration.
    pub(crate) samples: Vec<MetricSample>,
    /// Established TCP connections of the services.
    pub(crate) connections: u64,
    /// Of those, connections to service addresses that other nodes are home to.
    pub(crate) forwarded_in: u64,
    /// TCP sockets in use.
    pub(crate) active_sockets: u64,
    /// Requests that the built-in server works on, if it runs.
    pub(crate) in_flight: Option<u64>,
    /// For each door of the services, whether something listens that delivered packets reach.
    pub(crate) listening: BTreeMap<Door, bool>,
}

impl Readings {
    /// Everything as metrics of a node of this capacity, in the order of their numbers. `forwarded_out` is what the
    /// data plane forwards to others at the moment.
    pub(crate) fn metrics(&self, capacity: Capacity, forwarded_out: u32) -> Vec<MetricSample> {
        let of_capacity =
            |metric, used: u64| MetricSample { metric, load: LoadPermille::of(used, capacity.get().into()) };
        let mut metrics = self.samples.clone();
        metrics.push(of_capacity(Metric::Connections, self.connections));
        metrics.push(of_capacity(Metric::ActiveSockets, self.active_sockets));
        metrics.push(of_capacity(Metric::ForwardedOut, forwarded_out.into()));
        metrics.push(of_capacity(Metric::ForwardedIn, self.forwarded_in));
        metrics.extend(self.in_flight.map(|requests| of_capacity(Metric::RequestsInFlight, requests)));
        metrics.sort_by_key(|sample| sample.metric);
        metrics
    }
}

/// The weights of an operator who expressed no wish.
///
/// Where processor time is the whole host's (a container or namespace without a quota of its own), it says nothing
/// about this node, and connections and requests carry the index.
pub(crate) fn default_weights() -> BTreeMap<Metric, u16> {
    weights_where(confinement::is_confined(), Cgroup::of_this_process().quota().is_some())
}

fn weights_where(confined: bool, quota: bool) -> BTreeMap<Metric, u16> {
    let cpu = if confined && !quota { 0 } else { 2 };
    BTreeMap::from([(Metric::Cpu, cpu), (Metric::Connections, 1), (Metric::RequestsInFlight, 1)])
}

/// The end of the sampler that the event loop holds.
#[derive(Clone, Debug)]
pub(crate) struct LoadSampler {
    questions: mpsc::Sender<Question>,
}

/// A wish for readings.
#[derive(Debug)]
struct Question {
    /// Delivery addresses of the services that this node is home to.
    own_deliveries: Vec<IpAddr>,
    reply: oneshot::Sender<Readings>,
}

impl LoadSampler {
    /// Starts the thread. `figures` are the built-in server's, if it runs; delivery addresses are of `ranges`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        figures: Option<Arc<Figures>>,
        services: &[Service],
        ranges: DeliveryRanges,
    ) -> anyhow::Result<Self> {
        let (questions, asked) = mpsc::channel::<Question>();
        let mut meter = Meter::new(Sockets::new(services, ranges));
        std::thread::Builder::new()
            .name("dpr-load".to_owned())
            .spawn(move || {
                for Question { own_deliveries, reply } in asked {
                    let figures = figures.as_ref().map(|figures| figures.now());
                    // Whoever does not wait any more has no use for it.
                    let _ = reply.send(meter.read(figures, &own_deliveries, Instant::now()));
                }
            })
            .context("starting the load sampler's thread")?;
        Ok(Self { questions })
    }

    /// Measures now. `own_deliveries` are the delivery addresses of the services that this node is home to.
    ///
    /// # Errors
    /// The sampler's thread is gone.
    pub(crate) async fn read(&self, own_deliveries: Vec<IpAddr>) -> anyhow::Result<Readings> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question { own_deliveries, reply }).ok().context("the load sampler has ended")?;
        answer.await.context("the load sampler has ended")
    }
}

/// Reads, and remembers what rates are computed from.
struct Meter {
    cgroup: Cgroup,
    sockets: Sockets,
    cpu: VecDeque<(Instant, CpuUsed)>,
    figures: FiguresNow,
}

/// Processor time at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CpuUsed {
    /// Of a quota, microseconds.
    OfQuota(u64, Quota),
    /// Of the host.
    OfHost(CpuTicks),
}

impl Meter {
    fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            cgroup: Cgroup::of_this_process(),
            cpu: VecDeque::with_capacity(CPU_READINGS_MAX),
            figures: FiguresNow::default(),
        }
    }

    fn read(&mut self, figures: Option<FiguresNow>, own_deliveries: &[IpAddr], now: Instant) -> Readings {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let mut samples = Vec::new();
        let mut add = |metric, load: Option<LoadPermille>| {
            samples.extend(load.map(|load| MetricSample { metric, load }));
        };
        add(Metric::Cpu, self.cpu(&stat, now));
        add(Metric::RunQueue, run_queue(&stat));
        add(Metric::Memory, self.memory());
        add(Metric::Disk, file("/proc/pressure/io", proc::pressure_permille).map(LoadPermille));
        add(Metric::ServiceTime, figures.and_then(|figures| self.service_time(figures)));
        let active_sockets = tcp_in_use();
        let connections = self
            .sockets
            .connections(own_deliveries, active_sockets)
            .unwrap_or(Connections { established: active_sockets, forwarded_in: 0 });
        Readings {
            samples,
            connections: connections.established,
            forwarded_in: connections.forwarded_in,
            active_sockets,
            in_flight: figures.map(|figures| figures.in_flight),
            listening: self.sockets.listening(),
        }
    }

    fn cpu(&mut self, stat: &str, now: Instant) -> Option<LoadPermille> {
        let used = match (self.cgroup.quota(), self.cgroup.cpu_used_us()) {
            (Some(quota), Some(used_us)) => CpuUsed::OfQuota(used_us, quota),
            _ => CpuUsed::OfHost(proc::cpu_ticks(stat)?),
        };
        while self.cpu.len() >= CPU_READINGS_MAX
            || self.cpu.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= CPU_WINDOW)
        {
            self.cpu.pop_front();
        }
        let load =
            self.cpu.front().and_then(|(then, before)| cpu_between(*before, used, now.duration_since(*then)));
        self.cpu.push_back((now, used));
        load
    }

    fn memory(&self) -> Option<LoadPermille> {
        let (used, all) = self.cgroup.memory().or_else(|| file("/proc/meminfo", proc::memory_kib))?;
        Some(LoadPermille::of(used, all))
    }

    /// Mean time of the requests answered since the last reading.
    fn service_time(&mut self, figures: FiguresNow) -> Option<LoadPermille> {
        let before = std::mem::replace(&mut self.figures, figures);
        let answered = figures.answered.saturating_sub(before.answered);
        let busy = figures.busy.saturating_sub(before.busy);
        let permille = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mean_us = permille(busy).checked_div(answered)?;
        Some(LoadPermille::of(mean_us, permille(SERVICE_TIME_FULL)))
    }
}

fn cpu_between(before: CpuUsed, after: CpuUsed, elapsed: Duration) -> Option<LoadPermille> {
    match (before, after) {
        (CpuUsed::OfQuota(before_us, _), CpuUsed::OfQuota(after_us, quota)) => {
            let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            let allowed_us = elapsed_us.saturating_mul(quota.quota_us) / quota.period_us;
            (allowed_us > 0).then(|| LoadPermille::of(after_us.saturating_sub(before_us), allowed_us))
        }
        (CpuUsed::OfHost(before), CpuUsed::OfHost(after)) => {
            let total = after.total.saturating_sub(before.total);
            (total > 0).then(|| LoadPermille::of(after.busy.saturating_sub(before.busy), total))
        }
        _ => None,
    }
}

/// Runnable tasks beyond the one that reads, against processors.
fn run_queue(stat: &str) -> Option<LoadPermille> {
    let others = proc::runnable(stat)?.saturating_sub(1);
    Some(LoadPermille::of(others, proc::processors(stat)))
}

/// TCP sockets in use over either IP version; an IPv6 socket may have connections of both.
fn tcp_in_use() -> u64 {
    let of = |path| file(path, proc::tcp_in_use).unwrap_or(0);
    of("/proc/self/net/sockstat") + of("/proc/self/net/sockstat6")
}

fn file<T>(path: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(&read_to_string(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn meter() -> Meter {
        Meter::new(Sockets::new(&[], DeliveryRanges::default()))
    }

    #[test]
    fn processor_time_is_a_share_of_the_quota_or_of_the_host() {
        let quota = Quota { quota_us: 50_000, period_us: 100_000 };
        let second = Duration::from_secs(1);
        let ticks = |busy, total| CpuUsed::OfHost(CpuTicks { busy, total });

        let of_quota = cpu_between(CpuUsed::OfQuota(0, quota), CpuUsed::OfQuota(250_000, quota), second);
        let of_host = cpu_between(ticks(100, 1000), ticks(150, 1200), second);

        assert_eq!(of_quota, Some(LoadPermille(500)));
        assert_eq!(of_host, Some(LoadPermille(250)));
        assert_eq!(cpu_between(ticks(0, 7), ticks(0, 7), second), None);
        assert_eq!(cpu_between(ticks(0, 7), CpuUsed::OfQuota(0, quota), second), None);
    }

    #[test]
    fn counts_become_shares_of_the_capacity() {
        let readings =
            Readings { connections: 50, forwarded_in: 5, in_flight: Some(10), ..Readings::default() };

        let metrics = readings.metrics(Capacity::new(100), 25);

        let of = |wanted| metrics.iter().find(|sample| sample.metric == wanted).map(|sample| sample.load.0);
        assert_eq!(of(Metric::Connections), Some(500));
        assert_eq!(of(Metric::RequestsInFlight), Some(100));
        assert_eq!(of(Metric::ForwardedOut), Some(250));
        assert_eq!(of(Metric::ForwardedIn), Some(50));
        assert_eq!(of(Metric::Cpu), None);
    }

    #[test]
    fn host_wide_processor_time_does_not_count_in_a_container() {
        assert_eq!(weights_where(true, false)[&Metric::Cpu], 0);
        assert_eq!(weights_where(true, true)[&Metric::Cpu], 2);
        assert_eq!(weights_where(false, false)[&Metric::Cpu], 2);
    }

    #[test]
    fn service_time_is_the_mean_of_what_was_answered_since() {
        let mut meter = meter();
        let at =
            |answered, busy_ms| FiguresNow { in_flight: 0, answered, busy: Duration::from_millis(busy_ms) };

        assert_eq!(meter.service_time(at(10, 1000)), Some(LoadPermille(100)));
        assert_eq!(meter.service_time(at(10, 1000)), None);
        assert_eq!(meter.service_time(at(12, 2000)), Some(LoadPermille(500)));
    }

    #[test]
    fn this_host_can_be_measured() {
        let mut meter = meter();
        meter.read(None, &[], Instant::now());

        let readings = meter.read(None, &[], Instant::now() + Duration::from_secs(1));

        assert!(readings.samples.iter().any(|sample| sample.metric == Metric::Memory), "{readings:?}");
        assert!(readings.listening.is_empty());
    }
}
