//! The other side: questions of a stub resolver, and what it reads out of replies. Without sockets, as everything here.

use crate::key::Name;
use domain::base::iana::{Class, Rcode};
use domain::base::name::ToName as _;
use domain::base::{Message, MessageBuilder};
use domain::rdata::AllRecordData;
use std::io::{self, Read, Write};
use std::net::IpAddr;

pub use domain::base::iana::Rtype as RecordType;

/// What a reply says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The name does not exist, or the server refuses or fails; otherwise empty lists mean that there is nothing.
    pub failure: Option<String>,
    /// Truncated: to be asked again by TCP.
    pub truncated: bool,
    /// Addresses of the answer in their order, with their TTL in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Name servers of answer and authority section: a referral has them in the latter.
    pub name_servers: Vec<Name>,
    /// Addresses of the additional section, with whose they are.
    pub glue: Vec<(Name, IpAddr)>,
}

/// A reply that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is not a well-formed message")]
pub struct Unreadable;

/// The bytes of a question that wants recursion; servers without it ignore that.
pub fn question(id: u16, name: &Name, rtype: RecordType) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, rtype, Class::IN)).expect("a Vec takes a question");
    builder.finish()
}

/// Puts a question to a server by TCP, and reads what it answers (RFC 1035, section 4.2.2: each behind its length).
///
/// # Errors
/// What the stream says; a stream that ends before the answer does.
pub fn exchange(stream: &mut (impl Read + Write), question: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether `reply` answers `question`: the same ID, and the same question.
pub fn is_reply_to(reply: &[u8], question: &[u8]) -> bool {
    let (Ok(reply), Ok(question)) = (Message::from_octets(reply), Message::from_octets(question)) else {
        return false;
    };
    reply.is_answer(&question)
}

/// Reads a reply.
///
/// # Errors
/// [`Unreadable`]: it is not well-formed.
pub fn read(bytes: &[u8]) -> Result<Reply, Unreadable> {
    let message = Message::from_octets(bytes).map_err(|_| Unreadable)?;
    let rcode = message.header().rcode();
    let mut reply = Reply {
        failure: (rcode != Rcode::NOERROR).then(|| rcode.to_string()),
        truncated: message.header().tc(),
        ..Reply::default()
    };
    let (_, answer, authority, additional) = message.sections().map_err(|_| Unreadable)?;
    for (section, is_additional) in [(answer, false), (authority, false), (additional, true)] {
        for record in section.limit_to::<AllRecordData<_, _>>() {
            let record = record.map_err(|_| Unreadable)?;
            let address: Option<IpAddr> = match record.data() {
                AllRecordData::A(a) => Some(a.addr().into()),
                AllRecordData::Aaaa(aaaa) => Some(aaaa.addr().into()),
                AllRecordData::Ns(ns) => {
                    reply.name_servers.push(ns.nsdname().to_name());
                    None
                }
                _ => None,
            };
            match address {
                Some(address) if is_additional => reply.glue.push((record.owner().to_name(), address)),
                Some(address) => reply.addresses.push((address, record.ttl().as_secs())),
                None => {}
            }
        }
    }
    Ok(reply)
}
