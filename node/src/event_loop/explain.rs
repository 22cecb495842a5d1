//! `dpr explain`: who decides about a connection and where it goes. Any node gives the same answer: slot and owners are in
//! the map that all have, and the rest is asked of the owner.

use super::EventLoop;
use super::ownership::Ownership;
use crate::clock;
use crate::control::protocol::Response;
use crate::dataplane::Line;
use dpr_conntrack::sync::Message;
use dpr_load_gossip::Cargo;
use dpr_model::status::Explanation;
use dpr_model::{FlowKey, NodeId, ServiceReport, Sharing, Timestamp};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an owner may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Explanations that wait for an answer; who asks faster gets them without one.
const WAITING_MAX: usize = 64;

/// An explanation that waits for what its owner knows.
#[derive(Debug)]
pub(super) struct Waiting {
    explanation: Explanation,
    until: Timestamp,
    reply: oneshot::Sender<Response>,
}

impl EventLoop {
    pub(super) fn explain(&mut self, flow: FlowKey, reply: oneshot::Sender<Response>) {
        let now = clock::now();
        let own = self.view.report();
        let peers = self.cluster.gossip.peers(now);
        // As directors see it: this node's own claims first, then its peers' in order of id, and further ports last.
        let of =
            |node: NodeId, services: &[ServiceReport]| services.iter().map(move |its| (node, *its)).collect();
        let mut claims: Vec<(NodeId, ServiceReport)> = of(own.node, &own.services);
        claims.extend(peers.flat_map(|peer| of(peer.report.node, &peer.report.services)));
        let is_named = |(_, its): &&(NodeId, ServiceReport)| its.is_named_by(flow.protocol, flow.service);
        let has = |(_, its): &&(NodeId, ServiceReport)| its.has_further(flow.protocol, flow.service);
        let Some(&(reporter, service)) = claims.iter().find(is_named).or_else(|| claims.iter().find(has))
        else {
            let problem = format!("no node reports a service {} {}", flow.protocol.label(), flow.service);
            let _ = reply.send(Response::Error(problem));
            return;
        };
        let explanation = explanation(flow, reporter, service, self.ownership.as_ref());
        match explanation.owner {
            Some(owner) if owner == own.node => {
                tokio::spawn(answer_from_here(self.plane.line(), explanation, reply));
            }
            Some(owner) if self.explaining.len() < WAITING_MAX => {
                let question = Message::Query(vec![flow]).to_bytes();
                if let Err(error) = self.cluster.gossip.carry(Some(owner), &question, now) {
                    tracing::debug!(%error, "the owner of a connection is not asked");
                }
                self.explaining.push(Waiting { explanation, until: now + ANSWER_TIMEOUT, reply });
            }
            _ => finish(explanation, None, reply),
        }
    }

    /// Looks whether an owner has answered.
    pub(super) fn hear_answer(&mut self, cargo: &Cargo) {
        if self.explaining.is_empty() {
            return;
        }
        let Ok(Message::Answer(records)) = Message::from_bytes(&cargo.bytes) else { return };
        for record in records {
            let is_answered = |waiting: &mut Waiting| {
                waiting.explanation.owner == Some(cargo.from) && waiting.explanation.flow == record.flow
            };
            for waiting in self.explaining.extract_if(.., is_answered) {
                finish(waiting.explanation, Some(record.real_server), waiting.reply);
            }
        }
    }

    /// Gives up waiting for owners that say nothing: they answer only about what they know.
    pub(super) fn end_explanations(&mut self, now: Timestamp) {
        for waiting in self.explaining.extract_if(.., |waiting| waiting.until <= now) {
            finish(waiting.explanation, None, waiting.reply);
        }
    }

    /// When the next explanation has waited long enough.
    pub(super) fn explanation_deadline(&self) -> Option<Timestamp> {
        self.explaining.iter().map(|waiting| waiting.until).min()
    }
}

fn explanation(
    flow: FlowKey,
    reporter: NodeId,
    service: ServiceReport,
    ownership: Option<&Ownership>,
) -> Explanation {
    let mut explanation = Explanation {
        flow,
        sharing: service.sharing,
        partition_by: service.partition_by,
        map: None,
        slot: None,
        owner: (service.sharing == Sharing::Home).then_some(reporter),
        backups: Vec::new(),
        previous_owner: None,
        settled: true,
        real_server: None,
        reason: String::new(),
    };
    let Some(ownership) = ownership.filter(|_| service.sharing != Sharing::Home) else { return explanation };
    let duty = ownership.duty();
    let (map, address) = (&duty.map, flow.service.address);
    // What goes to a further port is decided about as if it went to the service's own.
    let slot = map.slots().slot_of(&FlowKey { service: service.socket, ..flow }, service.partition_by);
    let right = map.right(address, slot);
    explanation.map = Some(map.version());
    explanation.slot = Some(slot.0);
    explanation.owner = right.map(|right| right.owner);
    explanation.backups = map.backups(address, slot).into_iter().flatten().collect();
    explanation.previous_owner = map.previous_owner(address, slot);
    explanation.settled = duty.settled || right.is_none_or(|right| !right.moved);
    explanation
}

async fn answer_from_here(line: Line, explanation: Explanation, reply: oneshot::Sender<Response>) {
    match line.real_server_of(explanation.flow).await {
        Ok(real_server) => finish(explanation, real_server, reply),
        Err(error) => drop(reply.send(Response::Error(format!("{error:#}")))),
    }
}

fn finish(explanation: Explanation, real_server: Option<NodeId>, reply: oneshot::Sender<Response>) {
    let reason = match (explanation.owner, real_server) {
        (None, _) => "nobody owns its slot",
        _ if !explanation.settled => "its slot is changing hands",
        (Some(owner), Some(server)) if owner == server => "its owner has it",
        (Some(_), Some(_)) => "its owner has given it to another node",
        (Some(_), None) => "its owner knows no such connection: a new one is decided about by load",
    };
    let explanation = Explanation { real_server, reason: reason.to_owned(), ..explanation };
    // Who does not wait any more has no use for it.
    let _ = reply.send(Response::Explanation(Box::new(explanation)));
}
