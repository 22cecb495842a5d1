//! Whether clients can reach this node, judged by hosts on their network: its routers, for example.

use crate::reach::Answered;
use dpr_model::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// No answer of any host for so long means that clients do not reach this node either: five questions in a row.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// How long answers have to come again, so that a bad cable does not move connections to and fro.
const WELL_FOR: Duration = Duration::from_secs(3);

/// The clients' network, as this node sees it.
#[derive(Debug)]
pub(super) struct ClientsNetwork {
    hosts: Vec<IpAddr>,
    began: Timestamp,
    cut_off: bool,
    well_since: Option<Timestamp>,
}

impl ClientsNetwork {
    /// Judged by these hosts from `now` on; without any it is taken to be well.
    pub(super) fn new(hosts: Vec<IpAddr>, now: Timestamp) -> Self {
        Self { hosts, began: now, cut_off: false, well_since: None }
    }

    /// By whom it is judged.
    pub(super) fn hosts(&self) -> &[IpAddr] {
        &self.hosts
    }

    /// As of the last judgement.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Whether clients do not reach this node. One host that answers is enough.
    pub(super) fn judge(&mut self, answered: &Answered, now: Timestamp) -> bool {
        let latest = self.hosts.iter().filter_map(|host| answered.get(host)).max().copied();
        let is_silent = !self.hosts.is_empty() && now.since(latest.unwrap_or(self.began)) > SILENT_FOR;
        let before = self.cut_off;
        if is_silent {
            self.cut_off = true;
            self.well_since = None;
        } else if self.cut_off {
            let since = *self.well_since.get_or_insert(now);
            self.cut_off = now.since(since) < WELL_FOR;
        }
        match (before, self.cut_off) {
            (false, true) => {
                tracing::error!(hosts = ?self.hosts, "no host of ownership.ping answers: clients do not reach this node");
            }
            (true, false) => tracing::info!("hosts of ownership.ping answer again"),
            _ => {}
        }
        self.cut_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_node_is_cut_off_when_no_host_answers_and_back_when_one_does_for_a_while() {
        let (first, second) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut network = ClientsNetwork::new(vec![first, second], at(0));
        let mut judge = |answered: &[(IpAddr, u64)], now| {
            let answered = answered.iter().map(|(host, ms)| (*host, at(*ms))).collect();
            network.judge(&answered, at(now))
        };

        assert!(!judge(&[], 1000), "it has just begun");
        assert!(judge(&[], 1001));
        assert!(judge(&[(first, 2000)], 2100), "one answer is not enough");
        assert!(!judge(&[(first, 5000)], 5100));
        assert!(!judge(&[(first, 5000), (second, 9000)], 9500), "one host is enough");
        assert!(judge(&[(first, 5000), (second, 9000)], 10_001));
        assert!(!ClientsNetwork::new(vec![], at(0)).judge(&Answered::new(), at(99_000)), "nobody is asked");
    }
}
