//! Connections that this node has to decide about and does not know: it asks who does, and waits a while.

use dpr_conntrack::sync::QUERY_MAX;
use dpr_model::{FlowKey, Timestamp};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

/// Connections that are asked for at one time; the oldest question goes for a new one, so that a flood of packets of nobody's
/// connections takes no more room, and no question away from those that come after it.
pub(crate) const ASKED_MAX: usize = 4096;

/// Who has not answered after that does not know, or cannot be reached: a few messages in a row may be lost, and a sender
/// retransmits after 200 ms, 600 ms and 1.4 s (RFC 6298 with Linux's minimum).
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A question that nobody has answered is asked once more for a packet that comes as late as this: who could not be reached
/// then may be reached now, and senders that have waited long retransmit rarely.
const STALE: Duration = Duration::from_secs(9);

/// Until a question is repeated: more than the way there and back, less than a retransmission takes.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How long it is remembered that nobody knew.
const MEMORY: Duration = Duration::from_secs(60);

/// What is being asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    question_by_flow: HashMap<FlowKey, Question>,
    /// In the order in which they came up.
    order: VecDeque<(FlowKey, Timestamp)>,
    /// Connections that somebody knew, ever.
    answered: u64,
    /// Connections that nobody knew in time, ever.
    given_up: u64,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    since: Timestamp,
    asked_at: Option<Timestamp>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Asked once more, after a long time.
    OpenAgain,
    /// By somebody who had heard of it; its real server knows better.
    Hearsay,
    GivenUp,
}

impl State {
    fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::OpenAgain)
    }
}

impl Asked {
    /// True while the flow's packets have to wait for an answer; this is a packet of it.
    pub(crate) fn must_wait(&mut self, flow: &FlowKey, now: Timestamp) -> bool {
        self.forget_old(now);
        let Some(question) = self.question_by_flow.get_mut(flow) else {
            self.begin(flow, State::Open, now);
            return true;
        };
        let age = now.since(question.since);
        if age < PATIENCE {
            return true;
        }
        if age >= STALE && question.state == State::Open {
            self.begin(flow, State::OpenAgain, now);
            return true;
        }
        if question.state != State::GivenUp {
            question.state = State::GivenUp;
            self.given_up += 1;
        }
        false
    }

    /// Flows to ask for now, at most as many as one message has room for.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Vec<FlowKey> {
        let mut flows = Vec::new();
        for (flow, _) in &self.order {
            let Some(question) = self.question_by_flow.get_mut(flow) else { continue };
            let is_due = question.asked_at.is_none_or(|at| now.since(at) >= ASK_AGAIN);
            if question.state.is_open() && is_due && now.since(question.since) < PATIENCE {
                question.asked_at = Some(now);
                flows.push(*flow);
                if flows.len() == QUERY_MAX {
                    break;
                }
            }
        }
        flows
    }

    /// Whether an answer about a flow is to be believed: one was asked for, and no better one has come.
    pub(crate) fn accept(&mut self, flow: &FlowKey, by_real_server: bool) -> bool {
        let Some(question) = self.question_by_flow.get_mut(flow) else { return false };
        let is_news = by_real_server || question.state != State::Hearsay;
        if question.state.is_open() {
            self.answered += 1;
        }
        question.state = State::Hearsay;
        if by_real_server {
            self.question_by_flow.remove(flow);
        }
        is_news
    }

    /// The flow begins anew: answers would be about what was before.
    pub(crate) fn withdraw(&mut self, flow: &FlowKey) {
        self.question_by_flow.remove(flow);
    }

    /// Forgets what was asked about other flows than those: who decided about them since may have seen them begin anew.
    pub(crate) fn retain(&mut self, is_to_stay: impl Fn(&FlowKey) -> bool) {
        self.question_by_flow.retain(|flow, _| is_to_stay(flow));
    }

    /// How many were answered, and how many not, ever.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.answered, self.given_up)
    }

    fn begin(&mut self, flow: &FlowKey, state: State, now: Timestamp) {
        if self.order.len() >= ASKED_MAX
            && let Some((oldest, since)) = self.order.pop_front()
        {
            self.forget(&oldest, since);
        }
        self.question_by_flow.insert(*flow, Question { since: now, asked_at: None, state });
        self.order.push_back((*flow, now));
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((flow, since)) = self.order.front().copied()
            && now.since(since) > MEMORY
        {
            self.order.pop_front();
            self.forget(&flow, since);
        }
    }

    /// A flow that was asked for again has a question for each time; the latest one counts.
    fn forget(&mut self, flow: &FlowKey, since: Timestamp) {
        if self.question_by_flow.get(flow).is_some_and(|question| question.since == since) {
            self.question_by_flow.remove(flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{ClientSocket, Protocol, ServiceSocket};

    fn flow(number: u32) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: std::net::Ipv4Addr::from(number).into(), port: 1 },
            service: ServiceSocket { address: [192, 0, 2, 1].into(), port: 80 },
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(10_000 + millis)
    }

    #[test]
    fn a_question_is_repeated_until_it_is_answered_or_patience_ends() {
        let mut asked = Asked::default();
        assert!(asked.must_wait(&flow(1), at(0)));

        assert_eq!(asked.poll(at(0)), [flow(1)]);
        assert!(asked.poll(at(49)).is_empty());
        assert_eq!(asked.poll(at(50)), [flow(1)]);
        assert!(asked.must_wait(&flow(1), at(2999)));
        assert!(asked.poll(at(3000)).is_empty());
        assert!(!asked.must_wait(&flow(1), at(3000)));
        assert_eq!(asked.counts(), (0, 1));
    }

    #[test]
    fn a_question_that_nobody_answered_is_asked_once_more_for_a_late_packet() {
        let mut asked = Asked::default();
        asked.must_wait(&flow(1), at(0));
        asked.poll(at(0));

        assert!(asked.must_wait(&flow(1), at(16_000)), "who was out of reach may be back");
        assert_eq!(asked.poll(at(16_000)), [flow(1)]);
        assert!(!asked.must_wait(&flow(1), at(48_000)), "once is enough");
    }

    #[test]
    fn the_real_server_is_believed_before_and_after_hearsay() {
        let mut asked = Asked::default();
        assert!(!asked.accept(&flow(1), true), "nobody asked");
        asked.must_wait(&flow(1), at(0));

        assert!(asked.accept(&flow(1), false));
        assert!(!asked.accept(&flow(1), false));
        assert!(asked.poll(at(100)).is_empty());
        assert!(asked.accept(&flow(1), true));
        assert!(!asked.accept(&flow(1), false));
    }

    #[test]
    fn a_flood_displaces_the_oldest_questions_and_takes_no_more_room() {
        let mut asked = Asked::default();
        let most = u32::try_from(ASKED_MAX).unwrap();
        for number in 0..3 * most {
            assert!(asked.must_wait(&flow(number), at(u64::from(number) / 100)));
        }

        assert_eq!((asked.question_by_flow.len(), asked.order.len()), (ASKED_MAX, ASKED_MAX));
        assert!(asked.poll(at(130)).len() <= QUERY_MAX);
    }
}
