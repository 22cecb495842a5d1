//! Hosts under VLAN tags that the kernel has no interface for: who was heard under which tags, and where their neighbours are.
//!
//! The kernel looks for no neighbour under tags that it does not write itself, so this does, as [`NextHops`] has the kernel
//! do: it asks when somebody is to be sent to, again while no answer comes, and from time to time later. Which neighbour it
//! is, the host's routes say.

use super::next_hops::{ASK_AGAIN_AFTER, NextHop, NextHops, REVALIDATE_AFTER, Resolution};
use super::plane::Interface;
use super::transmit::Owned;
use dpr_model::{MacAddress, Timestamp};
use dpr_rewrite::ethernet::{EthernetHeader, Tags};
use dpr_rewrite::{Parsed, arp, ndp};
use hashbrown::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Hosts that are remembered; then all are forgotten, and learnt again when they are heard.
const HOSTS_MAX: usize = 65_536;
/// Neighbours that are remembered; then all are forgotten and asked for again.
const NEIGHBOURS_MAX: usize = 16_384;
/// A neighbour that has answered nothing for so long is not there any more: it was asked three times meanwhile, as often as
/// the kernel asks (`MAX_UNICAST_SOLICIT` of RFC 4861, section 10).
const SILENCE_MAX: Duration = Duration::from_secs(REVALIDATE_AFTER.as_secs() * 3);
/// Questions that wait to be sent; each is asked again.
const QUESTIONS_MAX: usize = 256;

/// Where a packet is to go, and what is known of VLAN tags on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    /// To a host, under the tags that it was heard under.
    Host(IpAddr),
    /// To another node, under the tags that the packet came with: it has to know under which to answer the client.
    Node(IpAddr, Tags),
}

/// What is known of hosts under tags.
pub(crate) struct TaggedHosts {
    trunk: Interface,
    tags_by_host: HashMap<IpAddr, Tags>,
    neighbours: HashMap<(Tags, IpAddr), Neighbour>,
    questions: Vec<Owned>,
}

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    /// Its MAC address, and when it last said so.
    said: Option<(MacAddress, Timestamp)>,
    asked: Timestamp,
}

impl TaggedHosts {
    /// Nobody yet, on the interface whose frames have tags.
    pub(crate) fn on(trunk: Interface) -> Self {
        Self { trunk, tags_by_host: HashMap::new(), neighbours: HashMap::new(), questions: Vec::new() }
    }

    /// Where a packet goes next. Routes say by which device and neighbour; another device than the trunk, such as a VLAN's
    /// own, has its own tags.
    pub(crate) fn resolve(&mut self, to: Towards, next_hops: &mut NextHops, now: Timestamp) -> Resolution {
        let (destination, tags) = match to {
            Towards::Host(host) => (host, self.tags_of(host)),
            Towards::Node(node, tags) => (node, tags),
        };
        let on_trunk = |next_hops: &mut NextHops| {
            next_hops.neighbour_towards(destination).filter(|neighbour| neighbour.link == self.trunk.link)
        };
        let neighbour = if tags.is_empty() { None } else { on_trunk(next_hops) };
        match (neighbour, to) {
            (Some(neighbour), Towards::Host(_)) => match self.mac_of(tags, neighbour.address, now) {
                Some(destination) => {
                    let Interface { link, mac: source } = self.trunk;
                    Resolution::Known(NextHop { link, source, destination, tags })
                }
                None => Resolution::Pending(neighbour),
            },
            // A node has one MAC address under all tags, which the kernel knows; routers on the way know no tags.
            (Some(neighbour), Towards::Node(node, _)) if neighbour.address == node => {
                match next_hops.resolve(node, now) {
                    Resolution::Known(next_hop) => Resolution::Known(NextHop { tags, ..next_hop }),
                    unknown => unknown,
                }
            }
            _ => next_hops.resolve(destination, now),
        }
    }

    /// A packet of `host` came under `tags`, or under none.
    pub(crate) fn hear(&mut self, host: IpAddr, tags: Tags) {
        if tags.is_empty() {
            if !self.tags_by_host.is_empty() {
                self.tags_by_host.remove(&host);
            }
            return;
        }
        if self.tags_by_host.len() >= HOSTS_MAX && !self.tags_by_host.contains_key(&host) {
            self.tags_by_host.clear();
        }
        self.tags_by_host.insert(host, tags.without_priorities());
    }

    /// The tags that a host was last heard under.
    fn tags_of(&self, host: IpAddr) -> Tags {
        if self.tags_by_host.is_empty() {
            return Tags::default();
        }
        self.tags_by_host.get(&host).copied().unwrap_or_default()
    }

    /// The MAC address of a neighbour under tags, if it is known; otherwise, and now and then, it is asked for.
    fn mac_of(&mut self, tags: Tags, neighbour: IpAddr, now: Timestamp) -> Option<MacAddress> {
        let key = (tags, neighbour);
        if self.neighbours.len() >= NEIGHBOURS_MAX && !self.neighbours.contains_key(&key) {
            self.neighbours.clear();
        }
        let known =
            self.neighbours.entry(key).or_insert(Neighbour { said: None, asked: Timestamp::default() });
        known.said = known.said.filter(|(_, when)| now.since(*when) < SILENCE_MAX);
        let patience = if known.said.is_some() { REVALIDATE_AFTER } else { ASK_AGAIN_AFTER };
        if known.asked == Timestamp::default() || now.since(known.asked) >= patience {
            known.asked = now;
            self.ask(tags, neighbour);
        }
        self.neighbours.get(&key)?.said.map(|(mac, _)| mac)
    }

    /// Takes over what a frame under tags says of a neighbour that was asked for: an answer, or a question of its own.
    pub(crate) fn learn(&mut self, frame: &[u8], parsed: &Parsed, now: Timestamp) {
        let Ok(ethernet) = EthernetHeader::parse(frame) else { return };
        let said = match parsed {
            Parsed::Ip(ip) => {
                ndp::advertised(frame, &ethernet, &ip.packet.ip).map(|(address, mac)| (address.into(), mac))
            }
            Parsed::Neighbour(asking) => Some((asking.source.into(), asking.source_mac)),
            Parsed::Arp(_) | Parsed::Other => {
                arp::sender(frame, &ethernet).map(|(address, mac)| (address.into(), mac))
            }
        };
        let Some((address, mac)) = said else { return };
        if let Some(known) = self.neighbours.get_mut(&(ethernet.tags.without_priorities(), address)) {
            known.said = Some((mac, now));
        }
    }

    /// What has to be sent, so that somebody answers.
    pub(crate) fn take_questions(&mut self) -> Vec<Owned> {
        std::mem::take(&mut self.questions)
    }

    fn ask(&mut self, tags: Tags, neighbour: IpAddr) {
        let mut frame = vec![0; arp::FRAME_LEN_MAX.max(ndp::ADVERTISEMENT_LEN_MAX)];
        let written = match neighbour {
            IpAddr::V4(target) => arp::question(target, self.trunk.mac, tags, &mut frame),
            IpAddr::V6(target) => ndp::question(target, self.trunk.mac, tags, &mut frame),
        };
        if let Ok(len) = written
            && self.questions.len() < QUESTIONS_MAX
        {
            self.questions.push(Owned::finished(&frame[..len], self.trunk.link));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet_socket::Offload;
    use super::*;
    use dpr_host::LinkIndex;
    use dpr_rewrite::arp::ArpRequest;
    use dpr_rewrite::ethernet::{Tag, ethertype};
    use dpr_rewrite::parse;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);

    fn hosts() -> TaggedHosts {
        TaggedHosts::on(Interface { link: LinkIndex(3), mac: MacAddress([2, 0, 0, 0, 0, 1]) })
    }

    fn tags(control: u16) -> Tags {
        Tags::new(Tag { ethertype: ethertype::VLAN, control }, None)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// The answer to the one question that is waiting.
    fn answer(hosts: &mut TaggedHosts) -> Vec<u8> {
        let [question] = &hosts.take_questions()[..] else { panic!("not one question") };
        let frame = &question.bytes[Offload::LEN..];
        let ethernet = EthernetHeader::parse(frame).unwrap();
        let request = ArpRequest::parse(frame, &ethernet).unwrap();
        let mut answer = vec![0; arp::FRAME_LEN_MAX];
        let len = request.reply(MAC, &mut answer).unwrap();
        answer.truncate(len);
        answer
    }

    #[test]
    fn a_host_is_sent_to_as_it_was_last_heard_whatever_its_priority() {
        let mut hosts = hosts();
        assert_eq!(hosts.tags_of(HOST), Tags::default());
        hosts.hear(HOST, tags(0xe000 | 100));
        assert_eq!(hosts.tags_of(HOST), tags(100));
        hosts.hear(HOST, tags(200));
        assert_eq!(hosts.tags_of(HOST), tags(200));
        hosts.hear(HOST, Tags::default());
        assert_eq!(hosts.tags_of(HOST), Tags::default());
    }

    #[test]
    fn a_neighbour_is_asked_for_under_its_tags_until_it_answers_and_again_later() {
        let mut hosts = hosts();
        assert_eq!(hosts.mac_of(tags(100), HOST, at(1)), None);
        let answer_to_first = answer(&mut hosts);
        assert_eq!(hosts.mac_of(tags(100), HOST, at(1)), None);
        assert!(hosts.take_questions().is_empty());
        assert_eq!(hosts.mac_of(tags(100), HOST, at(2)), None);
        assert_eq!(answer(&mut hosts), answer_to_first);

        hosts.learn(&answer_to_first, &parse(&answer_to_first).unwrap(), at(2));
        assert_eq!(hosts.mac_of(tags(100), HOST, at(3)), Some(MAC));
        assert!(hosts.take_questions().is_empty());
        assert_eq!(hosts.mac_of(tags(100), HOST, at(12)), Some(MAC));
        assert_eq!(hosts.take_questions().len(), 1);
        assert_eq!(hosts.mac_of(tags(100), HOST, at(32)), None);
        assert_eq!(hosts.mac_of(tags(200), HOST, at(3)), None);
    }

    #[test]
    fn nobody_is_believed_who_was_not_asked_for() {
        let mut hosts = hosts();
        let mut frame = [0; arp::FRAME_LEN_MAX];
        let len = arp::announcement([198, 51, 100, 7].into(), MAC, tags(100), &mut frame).unwrap();
        hosts.learn(&frame[..len], &parse(&frame[..len]).unwrap(), at(1));
        assert_eq!(hosts.mac_of(tags(100), HOST, at(1)), None);
    }
}
