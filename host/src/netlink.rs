//! rtnetlink: how links, addresses, routes, rules and neighbours are read and changed.
//!
//! The operations are in the modules of their nouns, as methods of [`Netlink`].

use crate::transport::{Consistency, End, NetlinkError, Requests, Transport};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;

/// How often a dump that the kernel calls inconsistent is repeated.
const DUMP_ATTEMPTS_MAX: u32 = 8;

/// A socket to the kernel's network configuration of one network namespace: the one in which the
/// opening thread was. It stays there whatever the thread does later.
///
/// Requests wait for their answer, at most five seconds.
pub struct Netlink {
    transport: Transport,
}

impl Netlink {
    /// A close-on-exec `NETLINK_ROUTE` socket. Needs no privilege; changes need `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, NetlinkError> {
        let transport = Transport::open(netlink_sys::protocols::NETLINK_ROUTE, "open rtnetlink")?;
        Ok(Self { transport })
    }

    /// Sends `message` and waits for the acknowledgement.
    pub(crate) fn change(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.request(operation, message, flags).map(drop)
    }

    /// Sends `message` and returns what is said before the acknowledgement.
    pub(crate) fn request(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let sequence = self.transport.reserve_sequences(1);
        let bytes = serialize(message, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
        let mut answer = Vec::new();
        let requests = Requests::one(operation, &bytes, sequence, End::Acknowledgement);
        self.transport.converse(requests, |kind, payload| {
            answer.push(parse(operation, kind, payload)?);
            Ok(())
        })?;
        Ok(answer)
    }

    /// Asks for everything of a kind and returns what `select` makes of it.
    ///
    /// A list that changed meanwhile is asked for again, so that it shows one moment.
    pub(crate) fn dump<T>(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
        mut select: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let sequence = self.transport.reserve_sequences(1);
            let bytes = serialize(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, sequence);
            let mut list = Vec::new();
            let requests = Requests::one(operation, &bytes, sequence, End::Dump);
            let consistency = self.transport.converse(requests, |kind, payload| {
                list.extend(select(parse(operation, kind, payload)?));
                Ok(())
            })?;
            if consistency == Consistency::Consistent {
                return Ok(list);
            }
        }
        Err(NetlinkError::DumpInterrupted { operation: operation.to_owned(), attempts: DUMP_ATTEMPTS_MAX })
    }
}

fn serialize(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A message of the kernel.
pub(crate) fn parse(operation: &str, kind: u16, payload: &[u8]) -> Result<RouteNetlinkMessage, NetlinkError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, payload)
        .map_err(|error| NetlinkError::malformed(operation, error.to_string()))
}
