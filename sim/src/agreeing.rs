//! What a node's daemon does about ownership: agreement, its messages as gossip's cargo, copies of connections.

use crate::names::address_of;
use crate::node::Node;
use dpr_conntrack::sync;
use dpr_director::SyncMessage;
use dpr_model::{FlowKey, LoadPermille, MapVersion, NodeId, NodeState, ServiceReport, Sharing, Timestamp};
use dpr_ownership::agreement::{Action, Applicant, Config};
use dpr_ownership::shares::Director;
use dpr_ownership::{Agreement, OwnershipMap, ServiceAddress, Share, SlotCount};
use std::net::IpAddr;
use std::time::Duration;

/// Nodes that found the cluster at most: two may die at once.
const FOUNDERS_MAX: u32 = 5;
/// How often a daemon asks its director for messages about copies.
const SYNC_EVERY: Duration = Duration::from_millis(20);
/// What a node of ordinary weight is worth.
const WORTH: Share = Share(1000);
/// Fewer than in real clusters, so that each is looked at often.
const SLOTS: Option<SlotCount> = SlotCount::new(256);

impl Node {
    /// The agreement of a new life, if anything is shared.
    pub(crate) fn new_agreement(&self, local: Timestamp) -> Option<Agreement> {
        self.settings.ingress?;
        let founders: Vec<NodeId> = (1..=self.settings.count.min(FOUNDERS_MAX)).map(NodeId).collect();
        let config = Config::new(self.id, self.incarnation, &founders)
            .and_then(|config| config.with_interval(self.settings.interval))
            .expect("there are few founders, and the interval was checked when the cluster was set up")
            .with_slots(SLOTS.unwrap_or_default())
            .with_quorum(self.settings.quorum)
            .with_give_back(self.settings.give_back);
        Some(Agreement::new(config, self.saved.as_deref(), local).expect("the node has kept it itself"))
    }

    /// True if its data plane does not act yet by what was agreed on.
    pub(crate) fn has_another_duty(&self) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let agreed = daemon.agreement.as_ref().map(|agreement| agreement.duty().serial);
        agreed.is_some() && agreed != daemon.director.duty_serial()
    }

    /// Lets the data plane go on acting by the duty that it has, if that is still what was agreed on.
    pub(crate) fn prolong_duty(&mut self, local: Timestamp) {
        if !self.has_another_duty() {
            self.tell_duty(local);
        }
    }

    /// Lets the data plane act by what was agreed on, and says so when others have been told what they need to act.
    pub(crate) fn tell_duty(&mut self, local: Timestamp) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(agreement) = &mut daemon.agreement else { return };
        let duty = agreement.duty();
        let serial = duty.serial;
        daemon.duty = Some(duty.clone());
        daemon.director.set_duty(duty, local);
        self.tell_others(local);
        if let Some(agreement) = self.daemon.as_mut().and_then(|daemon| daemon.agreement.as_mut()) {
            agreement.confirm(serial, local);
        }
    }

    pub(crate) fn handle_agreement_timeout(&mut self, local: Timestamp) {
        let agreement = self.daemon.as_ref().and_then(|daemon| daemon.agreement.as_ref());
        if agreement.is_none_or(|one| one.poll_timeout() > local) {
            return;
        }
        let own = (self.id, self.services());
        let address = address_of(self.id, self.settings.nodes);
        let Some(daemon) = &mut self.daemon else { return };
        let Some(agreement) = &mut daemon.agreement else { return };
        let mut applicants = vec![applicant(own.0, daemon.state, daemon.load)];
        let mut addresses = addresses_of(own.0, &own.1);
        let mut bound = vec![address];
        for peer in daemon.gossip.peers(local) {
            let report = peer.report;
            if peer.alive || report.state == NodeState::Leaving {
                applicants.push(applicant(report.node, report.state, report.load));
            }
            addresses.extend(addresses_of(report.node, &report.services));
            bound.push(report.address);
        }
        agreement.set_cluster(applicants, addresses);
        agreement.set_bound(bound);
        agreement.set_cut_off(self.cut_off);
        agreement.set_handed(has_copied(&daemon.director, self.id, agreement.map(), local));
        agreement.handle_timeout(local);
    }

    /// Takes in what came for agreement and for copies, and hands gossip what they have to say: about copies no more often than
    /// the daemon looks, unless something was said or `is_urgent`.
    pub(crate) fn exchange_cargo(&mut self, is_urgent: bool, local: Timestamp) {
        let mut is_due = is_urgent || local >= self.sync_at;
        while let Some(cargo) = self.daemon.as_mut().and_then(|daemon| daemon.gossip.poll_cargo()) {
            let Some(daemon) = &mut self.daemon else { return };
            let from = (cargo.from, cargo.incarnation);
            if cargo.bytes.first().is_some_and(|kind| *kind >= sync::KINDS_FROM) {
                let heard = daemon.director.handle_sync(from, &cargo.bytes, &mut self.stack, local);
                heard.expect("nodes understand each other");
                is_due = true;
            } else if let Some(agreement) = &mut daemon.agreement {
                agreement.handle_message(from, &cargo.bytes, local).expect("nodes understand each other");
            }
        }
        while let Some(action) = self.poll_agreement() {
            match action {
                Action::Persist(bytes) => self.saved = Some(bytes),
                Action::Send { to, bytes } => self.carry(to, &bytes, local),
                // The data plane follows when it has handled what waits.
                Action::DutyChanged => {}
            }
        }
        if is_due {
            self.tell_others(local);
        }
    }

    /// Hands gossip what its director has to say about copies.
    fn tell_others(&mut self, local: Timestamp) {
        self.sync_at = local + SYNC_EVERY;
        let ended = self.stack.take_ended();
        if let Some(daemon) = &mut self.daemon {
            ended.into_iter().for_each(|(socket, client)| daemon.director.note_ended(socket, client));
            daemon.director.end_kept(&mut self.stack, local);
        }
        while let Some(SyncMessage { to, bytes }) =
            self.daemon.as_mut().and_then(|daemon| daemon.director.poll_sync(local))
        {
            self.carry(to, &bytes, local);
        }
    }

    /// The map that its daemon has accepted.
    pub(crate) fn map(&self) -> Option<&OwnershipMap> {
        Some(self.daemon.as_ref()?.agreement.as_ref()?.map())
    }

    /// Addresses that this node announces on the network as its own.
    pub(crate) fn fronted(&self, local: Timestamp) -> Vec<IpAddr> {
        let daemon = self.daemon.as_ref().filter(|daemon| daemon.agreement.is_some());
        daemon.map_or(Vec::new(), |daemon| daemon.director.fronted_addresses(local))
    }

    /// True if this node is at work and the one that decides about a flow.
    pub(crate) fn decides_for(&self, flow: &FlowKey, now: Timestamp) -> bool {
        let daemon = self.daemon.as_ref().filter(|_| self.is_running());
        daemon.is_some_and(|daemon| daemon.director.decides_for(flow, self.local(now)))
    }

    fn poll_agreement(&mut self) -> Option<Action> {
        self.daemon.as_mut()?.agreement.as_mut()?.poll_action()
    }

    fn carry(&mut self, to: Option<NodeId>, bytes: &[u8], local: Timestamp) {
        if let Some(daemon) = &mut self.daemon {
            // Where nobody knows the receiver yet, the message is as good as lost.
            let _ = daemon.gossip.carry(to, bytes, local);
        }
    }
}

/// The map by which all who are to get an address have copies of what this node has of it, as the daemon finds it out.
fn has_copied(
    director: &dpr_director::Director,
    own: NodeId,
    map: &OwnershipMap,
    local: Timestamp,
) -> Option<MapVersion> {
    if map.heirs().next().is_none() {
        return Some(map.version());
    }
    let copies = director.sync_status(local);
    let is_copied = |(address, heir): (IpAddr, NodeId)| {
        let behind = || copies.iter().find(|status| status.node == heir)?.behind;
        heir == own || !map.owns_any(own, address) || behind().is_some_and(|behind| !behind.snapshot)
    };
    map.heirs().all(is_copied).then(|| map.version())
}

fn applicant(node: NodeId, state: NodeState, load: LoadPermille) -> Applicant {
    let worth = if state == NodeState::Active { WORTH } else { Share(0) };
    Applicant { director: Director { node, worth, load }, leaving: state == NodeState::Leaving }
}

fn addresses_of(node: NodeId, services: &[ServiceReport]) -> Vec<ServiceAddress> {
    let owned = |service: &ServiceReport| {
        let home = match service.sharing {
            Sharing::Home => return None,
            Sharing::Takeover => Some(node),
            Sharing::Shared(_) => None,
        };
        Some(ServiceAddress { address: service.socket.address, home })
    };
    services.iter().filter_map(owned).collect()
}
