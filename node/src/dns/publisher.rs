//! From load reports to what can be named: the event loop's end of the DNS server.

use crate::config::{Balance, Config};
use dpr_load_gossip::Gossip;
use dpr_model::{LoadPermille, LoadReport, Timestamp};
use dpr_rrdns::{Absence, AddressTable, Home, Membership};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Load from which a node is hot where `balance.maxload` is switched off: its default.
const HOT_FROM: LoadPermille = LoadPermille(700);

/// Tells the DNS server's threads which addresses can be named, when that changes.
#[derive(Debug)]
pub(crate) struct Publisher {
    membership: Membership,
    table: watch::Sender<Arc<AddressTable>>,
}

impl Publisher {
    /// Nothing can be named yet. Without a DNS server nobody listens.
    pub(crate) fn new(config: &Config) -> Self {
        let keep_dead = config.dns.as_ref().is_some_and(|dns| dns.keep_dead);
        let (table, _) = watch::channel(Arc::default());
        Self { membership: Membership::new(keep_dead, hot_from(&config.balance)), table }
    }

    /// Where the threads look.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<AddressTable>> {
        self.table.subscribe()
    }

    /// What is named at the moment.
    pub(crate) fn table(&self) -> Arc<AddressTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Takes a new `balance.maxload` over.
    pub(crate) fn reconfigure(&mut self, balance: &Balance) {
        self.membership.set_hot_from(hot_from(balance));
    }

    /// Looks at what this node and its peers report.
    pub(crate) fn publish(&mut self, own: &LoadReport, gossip: &Gossip, now: Timestamp) {
        let table = self.membership.table(&all_homes(own, gossip, now), &excluded(gossip));
        self.table.send_if_modified(|published| {
            let changed = **published != table;
            if changed {
                *published = Arc::new(table);
            }
            changed
        });
    }

    /// Which addresses are not named at the moment, by port, and why.
    pub(crate) fn left_out(
        &self,
        own: &LoadReport,
        gossip: &Gossip,
        now: Timestamp,
    ) -> Vec<(u16, IpAddr, Absence)> {
        self.membership.left_out(&all_homes(own, gossip, now), &excluded(gossip), &self.table())
    }
}

fn all_homes(own: &LoadReport, gossip: &Gossip, now: Timestamp) -> Vec<Home> {
    let peers = gossip.peers(now);
    homes(own, true).chain(peers.flat_map(|peer| homes(peer.report, peer.alive))).collect()
}

fn excluded(gossip: &Gossip) -> BTreeSet<IpAddr> {
    let excluded = gossip.exclusions().filter(|exclusion| exclusion.excluded);
    excluded.map(|exclusion| exclusion.address).collect()
}

fn hot_from(balance: &Balance) -> LoadPermille {
    if balance.maxload.0 == 0 { HOT_FROM } else { balance.maxload }
}

fn homes(report: &LoadReport, alive: bool) -> impl Iterator<Item = Home> {
    report.services.iter().map(move |service| Home {
        port: service.socket.port,
        address: service.socket.address,
        healthy: service.healthy,
        alive,
        state: report.state,
        weight: report.weight,
        load: report.load,
    })
}
