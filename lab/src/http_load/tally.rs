//! Sums over requests, and the rule by which a failure is excused.

use super::RequestRecord;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// A node-kill, as far as excuses need it.
#[derive(Clone, Debug)]
pub struct Kill {
    /// Name of the node.
    pub node: String,
    /// Its address, which clients connect to.
    pub address: IpAddr,
    /// When its link was cut.
    pub at: Instant,
}

/// Sums over requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub requests: u64,
    /// Those that were not answered correctly.
    pub failures: u64,
    /// Of the failures, those that no balancer could have saved.
    pub excused: u64,
    /// Answered requests by name of the node.
    pub served_by_node: BTreeMap<String, u64>,
    /// Failures by reason, excused ones included.
    pub failures_by_reason: BTreeMap<&'static str, u64>,
}

impl RequestRecord {
    /// Whether a node-kill excuses this failure, because nothing could have saved the connection.
    ///
    /// The rule, for a failure noticed after the kill:
    /// * if the connection was made to the killed node's own address before the kill, it is excused, whoever served it:
    ///   its director is gone, and with it the knowledge where its packets go;
    /// * if an earlier answer on the same connection named its real server, the failure is excused exactly if that is
    ///   the killed node;
    /// * if no answer ever came, it is excused exactly if the connection was begun before the kill. Such a connection
    ///   may have been the killed node's, and nobody can tell; so an excuse may be too kind by a request whose
    ///   handshake or first answer was under way at the moment of the kill, and by no other.
    ///
    /// A connection begun after the kill is never excused: the director had to find a live server for it, at the latest
    /// when the SYN was retransmitted.
    pub fn is_excused_by(&self, kill: &Kill) -> bool {
        if self.outcome.is_ok() || self.ended < kill.at {
            return false;
        }
        if self.target.ip() == kill.address && self.connection_began < kill.at {
            return true;
        }
        match &self.known_server {
            Some(server) => *server == kill.node,
            None => self.connection_began < kill.at,
        }
    }
}

impl Tally {
    /// Sums up `records`, excusing failures by any of `kills`.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a RequestRecord>, kills: &[Kill]) -> Self {
        let mut tally = Self::default();
        for record in records {
            tally.add(record, kills);
        }
        tally
    }

    /// Counts one more request, excusing its failure by any of `kills`.
    pub fn add(&mut self, record: &RequestRecord, kills: &[Kill]) {
        self.requests += 1;
        match &record.outcome {
            Ok(whoami) => *self.served_by_node.entry(whoami.name.clone()).or_default() += 1,
            Err(breakage) => {
                self.failures += 1;
                *self.failures_by_reason.entry(breakage.label()).or_default() += 1;
                self.excused += u64::from(kills.iter().any(|kill| record.is_excused_by(kill)));
            }
        }
    }

    /// Failures that are not excused.
    pub fn unexcused(&self) -> u64 {
        self.failures - self.excused
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failures, excused, .. } = self;
        write!(f, "{requests} requests, {failures} failures ({excused} excused)")?;
        for (reason, count) in &self.failures_by_reason {
            write!(f, ", {reason} {count}")?;
        }
        for (node, count) in &self.served_by_node {
            write!(f, ", served by {node}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Whoami;
    use super::*;
    use crate::breakage::Breakage;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// Times are milliseconds; the kill of `n2` is at 1000.
    fn failure(connection_began: u64, ended: u64, known_server: Option<&str>) -> (RequestRecord, Kill) {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let record = RequestRecord {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
            client: None,
            connection_began: at(connection_began),
            began: at(connection_began),
            ended: at(ended),
            known_server: known_server.map(str::to_owned),
            outcome: Err(Breakage::Reset),
        };
        (record, Kill { node: "n2".to_owned(), address: Ipv4Addr::new(10, 77, 0, 12).into(), at: at(1000) })
    }

    #[test]
    fn a_connection_of_the_killed_node_is_excused() {
        let (record, kill) = failure(100, 1200, Some("n2"));
        assert!(record.is_excused_by(&kill));
    }

    #[test]
    fn a_connection_of_another_node_is_not_excused() {
        let (record, kill) = failure(100, 1200, Some("n3"));
        assert!(!record.is_excused_by(&kill));
    }

    #[test]
    fn an_unanswered_connection_is_excused_only_if_it_was_begun_before_the_kill() {
        let (before, kill) = failure(999, 1200, None);
        assert!(before.is_excused_by(&kill));
        let (after, kill) = failure(1001, 1200, None);
        assert!(!after.is_excused_by(&kill));
    }

    #[test]
    fn a_connection_through_the_killed_node_is_excused_and_a_later_one_to_it_is_not() {
        for (began, excused) in [(999, true), (1001, false)] {
            let (mut record, kill) = failure(began, 1200, Some("n3"));
            record.target = SocketAddr::new(kill.address, 80);
            assert_eq!(record.is_excused_by(&kill), excused);
        }
    }

    #[test]
    fn a_failure_before_the_kill_is_not_excused() {
        let (record, kill) = failure(100, 900, Some("n2"));
        assert!(!record.is_excused_by(&kill));
    }

    #[test]
    fn a_tally_counts_servers_reasons_and_excuses() {
        let (failed, kill) = failure(100, 1200, Some("n2"));
        let mut served = failed.clone();
        let text = || "n3".to_owned();
        served.outcome =
            Ok(Whoami { node: text(), name: text(), director: text(), service: text(), client: text() });
        let tally = Tally::of([&failed, &served], &[kill]);
        assert_eq!((tally.requests, tally.failures, tally.excused, tally.unexcused()), (2, 1, 1, 0));
        assert_eq!(tally.served_by_node["n3"], 1);
        assert_eq!(tally.failures_by_reason["reset"], 1);
    }
}
