//! From bytes to a question, or to the reason why there is none.

use crate::edns::Edns;
use domain::base::iana::{Opcode, Rtype};
use domain::base::opt::{Opt, OptRecord};
use domain::base::wire::ParseError;
use domain::base::{Header, Message, ParsedName, Question};

/// A name within the query's own bytes.
pub(crate) type QueriedName<'a> = ParsedName<&'a [u8]>;

/// A message that asks something.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) header: Header,
    /// Without one, only a cookie is asked for (RFC 7873 section 5.4).
    pub(crate) question: Option<Question<QueriedName<'a>>>,
    pub(crate) edns: Option<Edns>,
}

/// What came in.
#[derive(Clone, Debug)]
pub(crate) enum Incoming<'a> {
    /// A query.
    Query(Query<'a>),
    /// Something that wants to be a query and is not well-formed.
    Malformed(Header),
    /// An operation that is not supported.
    Unsupported(Header),
    /// A response, or fewer bytes than a header has: to answer could begin an endless conversation.
    NotAQuery,
}

/// Reads a message.
pub(crate) fn read(bytes: &[u8]) -> Incoming<'_> {
    let Ok(message) = Message::from_slice(bytes) else { return Incoming::NotAQuery };
    let header = message.header();
    if header.qr() {
        return Incoming::NotAQuery;
    }
    if header.opcode() != Opcode::QUERY {
        return Incoming::Unsupported(header);
    }
    match read_query(message, header) {
        Ok(query) => Incoming::Query(query),
        Err(_) => Incoming::Malformed(header),
    }
}

fn read_query<'a>(message: &'a Message<[u8]>, header: Header) -> Result<Query<'a>, ParseError> {
    let counts = message.header_counts();
    if counts.qdcount() > 1 || counts.ancount() != 0 || counts.nscount() != 0 {
        return Err(ParseError::form_error("section counts of a query"));
    }
    let question = message.question().next().transpose()?;
    let edns = read_edns(message)?;
    let asks_for_cookie = edns.as_ref().is_some_and(|edns| edns.cookie.is_some());
    if question.is_none() && !asks_for_cookie {
        return Err(ParseError::form_error("no question"));
    }
    Ok(Query { header, question, edns })
}

/// The OPT record of a query; other additional records, such as signatures, are of no use here.
fn read_edns(message: &Message<[u8]>) -> Result<Option<Edns>, ParseError> {
    let mut edns = None;
    for record in message.additional()? {
        let record = record?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        // RFC 6891 section 6.1.1 and 6.1.2: one, of the root.
        if edns.is_some() || !record.owner().is_root() {
            return Err(ParseError::form_error("OPT records of a query"));
        }
        if let Some(record) = record.into_record::<Opt<&[u8]>>()? {
            edns = Some(Edns::read(&OptRecord::from(record))?);
        }
    }
    Ok(edns)
}
