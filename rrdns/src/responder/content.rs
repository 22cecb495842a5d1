//! What the zone says to a question: aliases followed, addresses in their turn, or that there is nothing.

use super::{Client, Outcome, Responder};
use crate::key::Key;
use crate::near;
use crate::query::QueriedName;
use crate::records::Data;
use crate::reply::{Frame, Owner, Sections, Target};
use crate::sites::{Family, Site};
use crate::zone::{CNAMES_MAX, Entry, Found, RecordSet, Zone};
use bytes::Bytes;
use domain::base::charstr::CharStr;
use domain::base::iana::{OptRcode, Rtype};
use domain::base::message_builder::{AuthorityBuilder, PushError};
use domain::base::{Question, Ttl};
use domain::rdata::Hinfo;
use std::net::IpAddr;
use std::sync::Arc;

/// TTL of the answer to questions for everything, seconds: resolvers should not ask again soon.
const ANY_TTL_S: u32 = 3600;

/// Addresses that an answer has at least, if there are so many.
const ADDRESSES_MIN: usize = 2;

/// Questions for whole zones.
pub(super) fn is_transfer(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::AXFR | Rtype::IXFR)
}

/// How the answer section ended.
enum Ending {
    Complete,
    NameServers,
    NoData,
    NoSuchName,
    Outside,
    /// The service has no address at all, for the moment.
    NoAddress,
}

/// Who is to be given service addresses.
#[derive(Clone, Copy)]
struct Asker {
    /// Rule of nearness that applies.
    rule: Option<usize>,
    hot: bool,
}

impl Responder {
    /// Writes the answer of the zone.
    ///
    /// # Errors
    /// It does not fit.
    pub(super) fn fill_with_content(
        &mut self,
        frame: &Frame<'_>,
        client: Client,
        hot_client: bool,
        reply: &mut Vec<u8>,
    ) -> Result<Outcome, PushError> {
        let mut sections = frame.begin(reply)?;
        let Some(question) = &frame.query.question else { return Ok(Outcome::Ignored) };
        let asker = Asker { rule: self.rule_for(frame, client.address), hot: hot_client };
        let zone = Arc::clone(&self.zone);
        let ending = self.answer_section(&zone, &mut sections, question, asker)?;
        if !matches!(ending, Ending::Outside | Ending::NoAddress) {
            sections.set_authoritative();
        }
        let mut authority = sections.authority();
        let (rcode, outcome) = match ending {
            Ending::Complete | Ending::NameServers => (OptRcode::NOERROR, Outcome::Answered),
            Ending::NoData => (OptRcode::NOERROR, Outcome::NoData),
            Ending::NoSuchName => (OptRcode::NXDOMAIN, Outcome::NoSuchName),
            Ending::Outside => (OptRcode::REFUSED, Outcome::Refused),
            Ending::NoAddress => (OptRcode::SERVFAIL, Outcome::NoAddress),
        };
        if matches!(ending, Ending::NoData | Ending::NoSuchName) {
            authority.push(zone.soa())?;
        }
        if matches!(ending, Ending::NameServers) {
            return Ok(finish_with_glue(&zone, frame, authority, question, reply));
        }
        frame.finish(authority.additional(), rcode, reply);
        Ok(outcome)
    }

    /// Clients are where their resolver says they are, or else where it is itself.
    fn rule_for(&self, frame: &Frame<'_>, client: IpAddr) -> Option<usize> {
        let subnet = frame.query.edns.as_ref().and_then(|edns| edns.subnet.as_ref());
        // RFC 7871 section 7.1.2: SOURCE 0 asks not to be located.
        let address = subnet.map_or(client, domain::base::opt::ClientSubnet::addr);
        let wants_no_location = subnet.is_some_and(|subnet| subnet.source_prefix_len() == 0);
        if wants_no_location { None } else { near::rule_for(&self.settings.near, address) }
    }

    fn answer_section(
        &mut self,
        zone: &Zone,
        sections: &mut Sections,
        question: &Question<QueriedName<'_>>,
        asker: Asker,
    ) -> Result<Ending, PushError> {
        let (name, rtype) = (question.qname(), question.qtype());
        let mut owner = Owner::Queried(name);
        let mut key = Key::of(name);
        for aliases in 0..=CNAMES_MAX {
            let entry = match zone.find(key.as_slice()) {
                Found::Present(entry) => entry,
                Found::Absent => return Ok(Ending::NoSuchName),
                // What an alias leads to elsewhere is for the resolver to find out.
                Found::Outside if aliases > 0 => return Ok(Ending::Complete),
                Found::Outside => return Ok(Ending::Outside),
            };
            match entry.alias() {
                Some((set, target)) if !matches!(rtype, Rtype::CNAME | Rtype::ANY) => {
                    sections.push_set(owner, set)?;
                    (owner, key) = (Owner::Alias(target), Key::of(target));
                }
                _ => return self.answer_entry(sections, owner, entry, rtype, asker),
            }
        }
        Ok(Ending::Complete)
    }

    fn answer_entry(
        &mut self,
        sections: &mut Sections,
        owner: Owner<'_>,
        entry: &Entry,
        rtype: Rtype,
        asker: Asker,
    ) -> Result<Ending, PushError> {
        let family = match rtype {
            Rtype::A => Some(Family::V4),
            Rtype::AAAA => Some(Family::V6),
            _ => None,
        };
        if let (Some(port), Some(family)) = (entry.service, family) {
            return self.answer_service(sections, owner, Site { port, family }, asker);
        }
        if rtype == Rtype::ANY {
            sections.push(owner, Ttl::from_secs(ANY_TTL_S), &any_data())?;
            return Ok(Ending::Complete);
        }
        let Some(set) = entry.set(rtype) else { return Ok(Ending::NoData) };
        sections.push_set(owner, set)?;
        Ok(if rtype == Rtype::NS { Ending::NameServers } else { Ending::Complete })
    }

    /// As many addresses as fit, as each answer names a part of all of them anyway; but a second one, if there is one,
    /// so that clients can go on when the first is dead. If that does not fit, clients have to come by TCP.
    fn answer_service(
        &mut self,
        sections: &mut Sections,
        owner: Owner<'_>,
        site: Site,
        asker: Asker,
    ) -> Result<Ending, PushError> {
        // Not "no data", which resolvers would remember: another server may know more, as this one will.
        if !self.sites.has_any(site.port) {
            return Ok(Ending::NoAddress);
        }
        self.sites.take(site, asker.rule, self.settings.addresses_max, &mut self.chosen);
        let ttls = self.zone.ttls();
        let is_hot = asker.hot || self.chosen.iter().any(|entry| entry.hot);
        let ttl = Ttl::from_secs(if is_hot { ttls.hot_s } else { ttls.ordinary_s });
        for (position, entry) in self.chosen.iter().enumerate() {
            match sections.push_address(owner, ttl, entry.address) {
                Err(_) if position >= ADDRESSES_MIN => break,
                pushed => pushed?,
            }
        }
        Ok(if self.chosen.is_empty() { Ending::NoData } else { Ending::Complete })
    }
}

/// The answer to questions for everything (RFC 8482 section 4.2).
fn any_data() -> Data {
    let text = |bytes: &'static [u8]| {
        CharStr::from_octets(Bytes::from_static(bytes)).expect("it is shorter than 256 bytes")
    };
    Data::Hinfo(Hinfo::new(text(b"RFC8482"), text(b"")))
}

/// Adds the name servers' addresses, as far as there is room: who asks for name servers needs them next.
fn finish_with_glue(
    zone: &Zone,
    frame: &Frame<'_>,
    authority: AuthorityBuilder<Target>,
    question: &Question<QueriedName<'_>>,
    reply: &mut Vec<u8>,
) -> Outcome {
    let mut additional = authority.additional();
    let servers = match zone.find(Key::of(question.qname()).as_slice()) {
        Found::Present(entry) => entry.set(Rtype::NS).map_or(&[][..], |set| set.data.as_slice()),
        _ => &[],
    };
    let names = servers.iter().filter_map(|data| match data {
        Data::Ns(ns) => Some(ns.nsdname()),
        _ => None,
    });
    for name in names {
        let Found::Present(entry) = zone.find(Key::of(name).as_slice()) else { continue };
        let sets = [Rtype::A, Rtype::AAAA].into_iter().filter_map(|rtype| entry.set(rtype));
        for RecordSet { ttl, data, .. } in sets {
            for address in data {
                // Without room for it, a resolver asks.
                let _ = additional.push((name, *ttl, address));
            }
        }
    }
    frame.finish(additional, OptRcode::NOERROR, reply);
    Outcome::Answered
}
