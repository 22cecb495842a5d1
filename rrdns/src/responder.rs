//! From a query to its reply.

mod content;
mod outcome;

pub use outcome::Outcome;

use crate::cookies::Cookies;
use crate::demand::Demand;
use crate::edns::{Edns, EdnsReply};
use crate::limiter::{Limiter, Permit};
use crate::near::{self, Near};
use crate::query::{self, Incoming, Query};
use crate::reply::{self, Frame};
use crate::sites::Sites;
use crate::table::{AddressTable, ServiceAddress};
use crate::zone::Zone;
use domain::base::iana::{Class, OptRcode};
use domain::base::opt::ClientSubnet;
use dpr_model::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// UDP payload of a client that does not say more (RFC 1035 section 2.3.4).
const UDP_PAYLOAD_DEFAULT: usize = 512;

/// A message's length has 16 bits (RFC 1035 section 4.2.2).
const TCP_LENGTH_MAX: usize = 65_535;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Its source address may be forged.
    Udp,
    /// Its source address is the client's.
    Tcp,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Source address of the query.
    pub address: IpAddr,
    /// How it came.
    pub transport: Transport,
}

/// The time, on both clocks that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For rates.
    pub monotonic: Timestamp,
    /// Seconds since 1970, modulo 2^32: for cookies, which outlive a process.
    pub unix_s: u32,
}

/// How queries are answered, whatever the zone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses in one answer, at least 1.
    pub addresses_max: usize,
    /// Answers per second to one client network; 0 sets no limit. Clients that have shown a cookie, or come by TCP, are
    /// not limited.
    pub rate_max: u32,
    /// Bytes of an answer by UDP to a client without a cookie, in percent of its query's; at least 100.
    pub amplification_percent: u32,
    /// Which addresses are near which clients.
    pub near: Vec<Near>,
    /// What the server calls itself (RFC 5001); nothing if empty.
    pub server_id: String,
    /// What clients by TCP are told about idle connections (RFC 7828).
    pub tcp_idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addresses_max: 4,
            rate_max: 200,
            amplification_percent: 150,
            near: Vec::new(),
            server_id: String::new(),
            tcp_idle: Duration::from_secs(10),
        }
    }
}

/// Answers queries; one for each thread, as it keeps accounts.
#[derive(Clone)]
pub struct Responder {
    zone: Arc<Zone>,
    settings: Settings,
    sites: Sites,
    cookies: Cookies,
    limiter: Limiter,
    demand: Demand,
    server_id: Arc<[u8]>,
    /// Addresses of the answer being made; kept for its memory.
    chosen: Vec<ServiceAddress>,
}

/// How far a query got before its content is looked up.
enum Admission {
    Admitted,
    Truncated,
    Refused,
}

impl Responder {
    /// Answers for `zone`, without any service address yet. Those who share `seed` accept each other's cookies; it has
    /// to be secret.
    pub fn new(zone: Arc<Zone>, settings: Settings, seed: [u8; 16]) -> Self {
        Self {
            zone,
            sites: Sites::default(),
            cookies: Cookies::new(seed),
            limiter: Limiter::new(settings.rate_max, seed),
            demand: Demand::default(),
            server_id: settings.server_id.as_bytes().into(),
            chosen: Vec::with_capacity(settings.addresses_max),
            settings,
        }
    }

    /// Names what is in `table` from now on.
    pub fn update(&mut self, table: &AddressTable) {
        self.sites.update(table, &self.settings.near);
    }

    /// Answers the query in `bytes`. What is to be sent back is in `reply` afterwards; nothing if it is empty.
    pub fn answer(&mut self, bytes: &[u8], client: Client, now: Now, reply: &mut Vec<u8>) -> Outcome {
        reply.clear();
        let query = match query::read(bytes) {
            Incoming::Query(query) => query,
            Incoming::NotAQuery => return Outcome::Ignored,
            Incoming::Malformed(header) => {
                return self.answer_bare(header, OptRcode::FORMERR, client, now, reply);
            }
            Incoming::Unsupported(header) => {
                return self.answer_bare(header, OptRcode::NOTIMP, client, now, reply);
            }
        };
        let verified = self.is_verified(&query, client, now);
        let admission = if verified { Admission::Admitted } else { self.admit(client, now) };
        if matches!(admission, Admission::Refused) {
            return Outcome::Limited;
        }
        let hot_client = self.demand.count(client.address, now.monotonic);
        let server_id = Arc::clone(&self.server_id);
        let mut frame = Frame {
            query: &query,
            edns: query.edns.as_ref().map(|edns| self.edns_reply(edns, client, now, &server_id)),
            length_max: self.length_max(&query, bytes.len(), client, verified),
        };
        frame.drop_what_is_optional(bytes.len());
        match admission {
            Admission::Truncated => truncate(&frame, reply, Outcome::LimitedTruncated),
            _ => self.fill(&frame, client, hot_client, reply),
        }
    }

    /// A header alone is shorter than any query with a question, so only its rate matters.
    fn answer_bare(
        &mut self,
        header: domain::base::Header,
        rcode: OptRcode,
        client: Client,
        now: Now,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        if client.transport == Transport::Udp && !matches!(self.admit(client, now), Admission::Admitted) {
            return Outcome::Limited;
        }
        reply::bare(header, rcode, reply);
        if rcode == OptRcode::FORMERR { Outcome::Malformed } else { Outcome::NotImplemented }
    }

    /// Whether the source address is known to be the client's.
    fn is_verified(&mut self, query: &Query<'_>, client: Client, now: Now) -> bool {
        let cookie = query.edns.as_ref().and_then(|edns| edns.cookie.as_ref());
        client.transport == Transport::Tcp
            || cookie.is_some_and(|cookie| self.cookies.is_valid(cookie, client.address, now.unix_s))
    }

    fn admit(&mut self, client: Client, now: Now) -> Admission {
        match self.limiter.ask(client.address, now.monotonic) {
            Permit::Answer => Admission::Admitted,
            Permit::Truncated => Admission::Truncated,
            Permit::Nothing => Admission::Refused,
        }
    }

    fn length_max(&self, query: &Query<'_>, query_length: usize, client: Client, verified: bool) -> usize {
        if client.transport == Transport::Tcp {
            return TCP_LENGTH_MAX;
        }
        let said = query.edns.as_ref().map_or(0, |edns| edns.udp_payload.into());
        let payload = said.clamp(UDP_PAYLOAD_DEFAULT, crate::UDP_PAYLOAD_MAX.into());
        if verified {
            return payload;
        }
        payload.min(query_length * self.settings.amplification_percent as usize / 100)
    }

    fn edns_reply<'a>(
        &mut self,
        edns: &Edns,
        client: Client,
        now: Now,
        server_id: &'a [u8],
    ) -> EdnsReply<'a> {
        let cookie = edns.cookie.as_ref();
        let scoped = |subnet: &ClientSubnet| {
            let scope = near::scope(&self.settings.near, subnet.addr());
            // RFC 7871 section 7.2.1: to SOURCE 0 the answer is SCOPE 0.
            let scope = if subnet.source_prefix_len() == 0 { 0 } else { scope };
            ClientSubnet::new(subnet.source_prefix_len(), scope, subnet.addr())
        };
        let idle_100_ms = u16::try_from(self.settings.tcp_idle.as_millis() / 100).unwrap_or(u16::MAX);
        EdnsReply {
            dnssec_ok: edns.dnssec_ok,
            subnet: edns.subnet.as_ref().map(scoped),
            cookie: cookie.map(|cookie| self.cookies.reply(cookie, client.address, now.unix_s)),
            nsid: (edns.wants_nsid && !server_id.is_empty()).then_some(server_id),
            keepalive: (edns.wants_keepalive && client.transport == Transport::Tcp).then_some(idle_100_ms),
        }
    }

    fn fill(&mut self, frame: &Frame<'_>, client: Client, hot_client: bool, reply: &mut Vec<u8>) -> Outcome {
        let refusal = match (&frame.query.edns, &frame.query.question) {
            // RFC 6891 section 6.1.3.
            (Some(edns), _) if edns.version != 0 => Some((OptRcode::BADVERS, Outcome::BadVersion)),
            (_, None) => Some((OptRcode::NOERROR, Outcome::Cookie)),
            (_, Some(question)) if !matches!(question.qclass(), Class::IN | Class::ANY) => {
                Some((OptRcode::REFUSED, Outcome::Refused))
            }
            (_, Some(question)) if content::is_transfer(question.qtype()) => {
                Some((OptRcode::REFUSED, Outcome::Refused))
            }
            _ => None,
        };
        let written = match refusal {
            Some((rcode, outcome)) => frame.begin(reply).map(|sections| {
                frame.finish(sections.authority().additional(), rcode, reply);
                outcome
            }),
            None => self.fill_with_content(frame, client, hot_client, reply),
        };
        written.unwrap_or_else(|_| truncate(frame, reply, Outcome::Truncated))
    }
}

/// The question with TC set: the client comes again by TCP (RFC 2181 section 9).
fn truncate(frame: &Frame<'_>, reply: &mut Vec<u8>, outcome: Outcome) -> Outcome {
    let Ok(mut sections) = frame.begin(reply) else {
        // Not even the question fits: there is nothing to say.
        reply.clear();
        return Outcome::Ignored;
    };
    sections.set_authoritative();
    sections.set_truncated();
    frame.finish(sections.authority().additional(), OptRcode::NOERROR, reply);
    outcome
}
