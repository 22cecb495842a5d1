//! Writing replies: within their limit, or truncated.

use crate::edns::EdnsReply;
use crate::key::Name;
use crate::query::{QueriedName, Query};
use crate::records::Data;
use crate::zone::RecordSet;
use domain::base::iana::{Class, OptRcode};
use domain::base::message_builder::{
    AdditionalBuilder, AnswerBuilder, AuthorityBuilder, PushError, StaticCompressor,
};
use domain::base::{Header, MessageBuilder, Ttl};
use domain::rdata::{A, Aaaa};
use std::net::IpAddr;

/// Where replies are written.
pub(crate) type Target = StaticCompressor<Vec<u8>>;

/// The owner of an answer's records: as it was asked for, so that its letters keep their case, or where aliases led.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    Queried(&'a QueriedName<'a>),
    Alias(&'a Name),
}

/// Everything of a reply but its records.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) query: &'a Query<'a>,
    pub(crate) edns: Option<EdnsReply<'a>>,
    /// Bytes of the whole reply at most.
    pub(crate) length_max: usize,
}

/// A reply's first two sections being written.
pub(crate) struct Sections {
    answer: AnswerBuilder<Target>,
}

impl Frame<'_> {
    /// What a server is called must not make a reply too long for its limit. `query_length` bytes are at least as many
    /// as a reply has without records and options.
    pub(crate) fn drop_what_is_optional(&mut self, query_length: usize) {
        let Some(edns) = &mut self.edns else { return };
        if query_length + edns.length() > self.length_max {
            edns.nsid = None;
        }
    }

    /// Begins a reply in `bytes`, whose content is replaced.
    ///
    /// # Errors
    /// Not even the question fits, with the OPT record behind it.
    pub(crate) fn begin(&self, bytes: &mut Vec<u8>) -> Result<Sections, PushError> {
        let reserved = self.edns.as_ref().map_or(0, EdnsReply::length);
        let mut builder = new_builder(bytes);
        // The builder's limit is the first length that is too long.
        builder.set_push_limit(self.length_max.saturating_sub(reserved) + 1);
        set_header(builder.header_mut(), self.query.header);
        let mut questions = builder.question();
        if let Some(question) = &self.query.question {
            questions.push(question)?;
        }
        Ok(Sections { answer: questions.answer() })
    }

    /// Ends a reply that was begun.
    pub(crate) fn finish(
        &self,
        mut additional: AdditionalBuilder<Target>,
        rcode: OptRcode,
        bytes: &mut Vec<u8>,
    ) {
        additional.clear_push_limit();
        additional.header_mut().set_rcode(rcode.rcode());
        if let Some(edns) = &self.edns {
            edns.write(&mut additional, rcode).expect("without a limit, a Vec takes an OPT record");
        }
        *bytes = additional.finish().into_target();
    }
}

impl Sections {
    /// The answer is this server's own (RFC 1035 section 4.1.1).
    pub(crate) fn set_authoritative(&mut self) {
        self.answer.header_mut().set_aa(true);
    }

    /// The answer is not complete.
    pub(crate) fn set_truncated(&mut self) {
        self.answer.header_mut().set_tc(true);
    }

    pub(crate) fn push_set(&mut self, owner: Owner<'_>, set: &RecordSet) -> Result<(), PushError> {
        set.data.iter().try_for_each(|data| self.push(owner, set.ttl, data))
    }

    pub(crate) fn push(&mut self, owner: Owner<'_>, ttl: Ttl, data: &Data) -> Result<(), PushError> {
        match owner {
            Owner::Queried(name) => self.answer.push((name, Class::IN, ttl, data)),
            Owner::Alias(name) => self.answer.push((name, Class::IN, ttl, data)),
        }
    }

    pub(crate) fn push_address(
        &mut self,
        owner: Owner<'_>,
        ttl: Ttl,
        address: IpAddr,
    ) -> Result<(), PushError> {
        let data = match address {
            IpAddr::V4(address) => Data::A(A::new(address)),
            IpAddr::V6(address) => Data::Aaaa(Aaaa::new(address)),
        };
        self.push(owner, ttl, &data)
    }

    /// No more answers: on to the authority section.
    pub(crate) fn authority(self) -> AuthorityBuilder<Target> {
        self.answer.authority()
    }
}

/// A reply that consists of a header only, for queries whose question cannot be repeated.
pub(crate) fn bare(header: Header, rcode: OptRcode, bytes: &mut Vec<u8>) {
    let mut builder = new_builder(bytes);
    set_header(builder.header_mut(), header);
    builder.header_mut().set_rcode(rcode.rcode());
    *bytes = builder.finish().into_target();
}

fn new_builder(bytes: &mut Vec<u8>) -> MessageBuilder<Target> {
    let target = StaticCompressor::new(std::mem::take(bytes));
    MessageBuilder::from_target(target).expect("a Vec takes a header")
}

/// What a reply's header takes over: ID, operation, and whether recursion was desired (RFC 1035 section 4.1.1).
fn set_header(reply: &mut Header, query: Header) {
    reply.set_id(query.id());
    reply.set_qr(true);
    reply.set_opcode(query.opcode());
    reply.set_rd(query.rd());
}
