//! Agreement on owners at work: its messages as cargo of gossip, its memory on the disk, the members out of load reports.
//!
//! It does what `dpr-ownership` wants done, in its order; what the disk does not have yet is not said, and not acted by.

use super::clients_network::ClientsNetwork;
use crate::clock;
use crate::config::Config;
use crate::dataplane::Snapshot;
use crate::kept_file::{Keeping, KeptFile, Subject};
use crate::reach::Reach;
use anyhow::Context as _;
use dpr_conntrack::sync;
use dpr_director::SyncStatus;
use dpr_load_gossip::{Cargo, Gossip};
use dpr_model::status::{AddressStatus, BehindStatus, CopiesStatus, MemberStatus, OwnershipStatus};
use dpr_model::{
    Incarnation, LoadPermille, LoadReport, MapVersion, Metric, NodeId, NodeState, Sharing, Timestamp,
};
use dpr_ownership::agreement::{self, Action, Applicant, Duty, INTERVAL_MAX, Quorum, TakeOverError};
use dpr_ownership::shares::Director;
use dpr_ownership::{Agreement, OwnershipMap, ServiceAddress, Share};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

/// Share of one unit of weight: an ordinary weight of 100 gives 1000.
const SHARE_OF_WEIGHT: u16 = 10;

/// This node's part in the agreement.
#[derive(Debug)]
pub(crate) struct Ownership {
    node: NodeId,
    quorum: Quorum,
    agreement: Agreement,
    file: KeptFile,
    /// Until the disk has what comes before the next action.
    keeping: Option<Keeping>,
    /// As of the last word that is on the disk.
    duty: Duty,
    load_by_node: BTreeMap<NodeId, LoadPermille>,
    /// Asks hosts on the clients' network, and voters if there is a witness.
    reach: Reach,
    clients_network: ClientsNetwork,
    witnesses: Vec<IpAddr>,
    refused: BTreeMap<&'static str, u64>,
    was_settled: bool,
}

impl Ownership {
    /// Begins a life of an agreement, if the configuration wants one.
    ///
    /// # Errors
    /// What an earlier life kept cannot be read.
    pub(crate) fn start(
        config: &Config,
        incarnation: Incarnation,
        now: Timestamp,
    ) -> anyhow::Result<Option<Self>> {
        let Some(settings) = &config.ownership else { return Ok(None) };
        let node = config.node.id;
        let file = KeptFile::beside(&config.control_socket, Subject::Ownership);
        let configured = agreement::Config::new(node, incarnation, &settings.voters)?
            .with_interval(config.gossip.interval.min(INTERVAL_MAX))?
            .with_quorum(settings.quorum)
            .with_give_back(settings.give_back)
            .with_slots(settings.slots);
        let agreement = Agreement::new(configured, file.read()?.as_deref(), now).with_context(|| {
            let path = file.path().display();
            format!(
                "reading {path}; if ownership.voters are the voters still, remove the file and start again"
            )
        })?;
        let nobody_is_asked = settings.ping.is_empty() && settings.witnesses.is_empty();
        Ok(Some(Self {
            reach: if nobody_is_asked { Reach::nobody() } else { Reach::start()? },
            clients_network: ClientsNetwork::new(settings.ping.clone(), now),
            witnesses: settings.witnesses.clone(),
            node,
            quorum: settings.quorum,
            duty: agreement.duty(),
            agreement,
            file,
            keeping: None,
            load_by_node: BTreeMap::new(),
            refused: BTreeMap::new(),
            was_settled: false,
        }))
    }

    /// Takes in a message of another node.
    pub(super) fn handle_cargo(&mut self, cargo: &Cargo, now: Timestamp) {
        let from = (cargo.from, cargo.incarnation);
        if let Err(error) = self.agreement.handle_message(from, &cargo.bytes, now) {
            tracing::debug!(peer = %cargo.from, reason = error.label(), %error, "a message of agreement is ignored");
            *self.refused.entry(error.label()).or_default() += 1;
        }
    }

    /// Takes in who is there and what belongs to whom, by load reports.
    pub(super) fn follow(&mut self, own: &LoadReport, gossip: &Gossip, now: Timestamp) {
        let peers = gossip.peers(now);
        let present = |view: &dpr_load_gossip::PeerView<'_>| view.alive || is_leaving(view.report);
        let reports: Vec<&LoadReport> = peers.map(|view| view.report).chain([own]).collect();
        let is_present =
            |node: NodeId| node == self.node || gossip.peer(node, now).as_ref().is_some_and(present);
        let applicants =
            reports.iter().filter(|report| is_present(report.node)).map(|report| applicant(report));
        let applicants: Vec<Applicant> = applicants.collect();
        self.load_by_node = applicants.iter().map(|one| (one.director.node, one.director.load)).collect();
        let addresses = reports.iter().flat_map(|report| addresses_of(report)).collect();
        self.agreement.set_cluster(applicants, addresses);
        self.agreement.set_bound(reports.iter().map(|report| report.address));
        let peers = reports.iter().filter(|report| report.node != self.node);
        let address_by_peer = peers.map(|report| (report.node, report.address)).collect();
        self.look_around(&address_by_peer, now);
    }

    /// Takes in who answers on the clients' network.
    fn look_around(&mut self, address_by_peer: &BTreeMap<NodeId, IpAddr>, now: Timestamp) {
        let has_witness = self.quorum == Quorum::Witness;
        let map = self.agreement.map();
        let voters = map.voters().now.iter().filter(|_| has_witness);
        let voters: Vec<(NodeId, IpAddr)> =
            voters.filter_map(|voter| Some((*voter, *address_by_peer.get(voter)?))).collect();
        let hosts = self.clients_network.hosts().iter().chain(&self.witnesses).copied();
        self.reach.follow(hosts.chain(voters.iter().map(|(_, address)| *address)).collect());
        let answered = self.reach.answered();
        self.agreement.set_cut_off(self.clients_network.judge(&answered, now));
        for (voter, address) in voters {
            if let Some(asked_at) = answered.get(&address) {
                self.agreement.see_voter(voter, *asked_at);
            }
        }
        if let Some(asked_at) = self.witnesses.iter().filter_map(|witness| answered.get(witness)).max() {
            self.agreement.hear_witness(*asked_at, now);
        }
    }

    /// Takes in what the data plane says of copies, by a duty of this serial.
    pub(super) fn note_copies(&mut self, snapshot: &Snapshot) {
        let map = &self.duty.map;
        let is_copied = |(address, heir): (IpAddr, NodeId)| {
            let copies = || snapshot.copies.iter().find(|copies| copies.node == heir)?.behind;
            heir == self.node
                || !map.owns_any(self.node, address)
                || copies().is_some_and(|behind| !behind.snapshot)
        };
        let is_current = snapshot.duty_serial == Some(self.duty.serial);
        let handed = is_current && map.heirs().all(is_copied);
        self.agreement.set_handed(handed.then(|| map.version()));
    }

    /// Has `to` own all slots of these addresses, or gives them back.
    pub(super) fn take_over(
        &mut self,
        addresses: &[IpAddr],
        to: Option<NodeId>,
        now: Timestamp,
    ) -> Result<(), TakeOverError> {
        self.agreement.take_over(addresses, to, now)?;
        tracing::warn!(?addresses, ?to, "an operator moves addresses");
        Ok(())
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if now >= self.agreement.poll_timeout() {
            self.agreement.handle_timeout(now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.agreement.poll_timeout()
    }

    /// Does everything that agreement wants done, up to what has to wait for the disk. True if the duty changed.
    pub(super) fn carry_out_actions(&mut self, gossip: &mut Gossip) -> bool {
        let mut changed = false;
        while self.keeping.is_none()
            && let Some(action) = self.agreement.poll_action()
        {
            match action {
                Action::Persist(bytes) => {
                    self.keeping = Some(self.file.keep(bytes));
                }
                Action::Send { to, bytes } => {
                    if let Err(error) = gossip.carry(to, &bytes, clock::now()) {
                        tracing::debug!(%error, "a message of agreement is not sent");
                    }
                }
                Action::DutyChanged => changed = true,
            }
        }
        if self.keeping.is_none() {
            self.duty = self.agreement.duty();
        }
        if changed {
            self.note_change();
        }
        changed
    }

    /// Waits until the disk has what is to be kept; for ever if there is nothing.
    pub(super) async fn kept(&mut self) {
        let Some(keeping) = &mut self.keeping else { return pending().await };
        keeping.done().await;
        self.keeping = None;
    }

    /// What the data plane may do.
    pub(super) fn duty(&self) -> &Duty {
        &self.duty
    }

    /// The data plane acts by the duty of this serial, and by no earlier one.
    pub(super) fn confirm(&mut self, serial: u64, now: Timestamp) {
        self.agreement.confirm(serial, now);
    }

    /// Version of the map that this node goes by, for its reports.
    pub(super) fn map_version(&self) -> MapVersion {
        self.duty.map.version()
    }

    /// This node takes leave: somebody else is to be coordinator.
    pub(super) fn leave(&mut self) {
        self.agreement.leave();
    }

    /// True while others count on this node to decide for something, or wait for its word that it does not any more.
    pub(super) fn is_needed(&self) -> bool {
        self.duty.map.has_member(self.node) || !self.duty.settled
    }

    /// An operator declares a silent node dead. False if it is not silent.
    pub(super) fn forget(&mut self, node: NodeId, now: Timestamp) -> bool {
        self.agreement.forget(node, now)
    }

    /// What `dpr status` shows.
    pub(super) fn status(&self, snapshot: &Snapshot, now: Timestamp) -> OwnershipStatus {
        let refused = self.refused.iter().chain(&snapshot.sync_refused);
        let map = self.agreement.map();
        let promised = self.duty.until.filter(|until| *until >= now).map(|until| until.since(now));
        OwnershipStatus {
            quorum: label(self.quorum).to_owned(),
            cut_off: self.clients_network.is_cut_off(),
            answered_ms: self.answers(now),
            term: self.agreement.term(),
            coordinator: self.agreement.coordinator(),
            map: map.version(),
            settled: self.duty.settled,
            promised_ms: promised.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            voters: map.voters().now.clone(),
            members: map.members().iter().map(|member| self.member_status(*member)).collect(),
            addresses: address_statuses(map),
            unsaved: self.keeping.is_some(),
            copies: snapshot.copies.iter().map(copies_status).collect(),
            asked_known: snapshot.asked.0,
            asked_unknown: snapshot.asked.1,
            refused: refused.fold(BTreeMap::new(), |mut sums, (label, count)| {
                *sums.entry((*label).to_owned()).or_default() += count;
                sums
            }),
        }
    }

    /// How long ago each host on the clients' network was asked what it answered.
    fn answers(&self, now: Timestamp) -> BTreeMap<IpAddr, u64> {
        let age = |at: Timestamp| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        self.reach.answered().into_iter().map(|(host, at)| (host, age(at))).collect()
    }

    fn member_status(&self, member: dpr_ownership::Member) -> MemberStatus {
        let load = self.load_by_node.get(&member.node).copied();
        MemberStatus { node: member.node, share: member.share.0, load }
    }

    fn note_change(&mut self) {
        let Duty { map, settled, .. } = &self.duty;
        if *settled && !self.was_settled {
            let MapVersion { term, epoch, coordinator } = map.version();
            let members = map.members().len();
            tracing::info!(term, epoch, coordinator = %NodeId(coordinator), members, "an ownership map is settled");
        }
        self.was_settled = *settled;
    }
}

fn is_leaving(report: &LoadReport) -> bool {
    report.state == NodeState::Leaving
}

/// A node that is not active owns nothing that others could own.
fn applicant(report: &LoadReport) -> Applicant {
    let worth = match report.state {
        NodeState::Active => report.weight.0.saturating_mul(SHARE_OF_WEIGHT),
        NodeState::Joining | NodeState::Draining | NodeState::Leaving => 0,
    };
    let load = report.metrics.iter().find(|sample| sample.metric == Metric::ForwardedOut);
    Applicant {
        director: Director {
            node: report.node,
            worth: Share(worth),
            load: load.map_or(LoadPermille(0), |sample| sample.load),
        },
        leaving: is_leaving(report),
    }
}

/// Addresses that more than one node may own.
fn addresses_of(report: &LoadReport) -> impl Iterator<Item = ServiceAddress> {
    report.services.iter().filter_map(|service| {
        let home = match service.sharing {
            Sharing::Home => return None,
            Sharing::Takeover => Some(report.node),
            Sharing::Shared(_) => None,
        };
        Some(ServiceAddress { address: service.socket.address, home })
    })
}

/// True for cargo that the data plane understands; the rest is agreement's (docs/wire-format.md).
pub(super) fn is_about_connections(cargo: &Cargo) -> bool {
    cargo.bytes.first().is_some_and(|kind| *kind >= sync::KINDS_FROM)
}

fn copies_status(status: &SyncStatus) -> CopiesStatus {
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let behind = status.behind.map(|behind| BehindStatus {
        batches: behind.batches as u64,
        age_ms: millis(behind.age),
        given_up: behind.given_up,
        snapshot: behind.snapshot,
    });
    CopiesStatus { node: status.node, behind, whole: status.whole, refused: status.refused }
}

fn address_statuses(map: &OwnershipMap) -> Vec<AddressStatus> {
    let shared = map.members().iter().map(|member| member.node).zip(map.slots_by_member());
    let shared: BTreeMap<NodeId, u32> = shared.filter(|(_, slots)| *slots > 0).collect();
    let status = |service: ServiceAddress| AddressStatus {
        address: service.address,
        home: service.home,
        slots: match map.holder_of(service.address) {
            Some(holder) => BTreeMap::from([(holder, map.slots().get().into())]),
            None => shared.clone(),
        },
        lent: map.is_lent(service.address),
        heir: map.heir_of(service.address),
    };
    map.addresses().map(status).collect()
}

/// The word for it in configuration and status.
fn label(quorum: Quorum) -> &'static str {
    match quorum {
        Quorum::Majority => "majority",
        Quorum::Witness => "witness",
        Quorum::None => "none",
    }
}
