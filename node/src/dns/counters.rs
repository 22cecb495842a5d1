//! What the threads of the DNS server count together.

use crate::config::Dns;
use dpr_model::status::{DnsAbsence, DnsName, DnsStatus};
use dpr_rrdns::{Absence, AddressTable, Outcome, Transport};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Queries by how they came and what became of them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    by_udp: AtomicU64,
    by_tcp: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Counters {
    pub(super) fn count(&self, transport: Transport, outcome: Outcome) {
        let queries = match transport {
            Transport::Udp => &self.by_udp,
            Transport::Tcp => &self.by_tcp,
        };
        queries.fetch_add(1, Ordering::Relaxed);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status(
        &self,
        settings: &Dns,
        table: &AddressTable,
        left_out: &[(u16, IpAddr, Absence)],
    ) -> DnsStatus {
        let name = |(name, port): &(dpr_rrdns::Name, u16)| DnsName {
            name: name.to_string(),
            port: *port,
            addresses: table.addresses(*port).iter().map(|entry| entry.address).collect(),
        };
        let ports: BTreeSet<u16> = settings.zone.services().iter().map(|(_, port)| *port).collect();
        let absences = left_out.iter().filter(|(port, _, _)| ports.contains(port));
        let outcomes = Outcome::ALL.iter().zip(&self.outcomes);
        DnsStatus {
            zone: settings.zone.apex().to_string(),
            listen: settings.listen.clone(),
            names: settings.zone.services().iter().map(name).collect(),
            left_out: absences
                .map(|(port, address, absence)| DnsAbsence {
                    address: (*address, *port).into(),
                    reason: absence.label().to_owned(),
                })
                .collect(),
            queries_udp: self.by_udp.load(Ordering::Relaxed),
            queries_tcp: self.by_tcp.load(Ordering::Relaxed),
            outcomes: outcomes
                .map(|(outcome, count)| (outcome.label().to_owned(), count.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}
