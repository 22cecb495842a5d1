//! Tables, chains, sets and rules as netlink messages, and the batch that makes them one change.

use super::rule::{key_len, key_of};
use super::{
    Datatype, IngressChain, Lifetime, Match, NftError, PayloadBase, PayloadField, PayloadMatch, Relation,
    Rule, Table, Verdict,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, DevHookNumber, Expressions, Hook, HookNumber,
    Immediate, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
    RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
    Verdict as WireVerdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use std::collections::BTreeSet;

/// `NFNETLINK_V0`.
const VERSION: u8 = 0;

/// `NFNL_SUBSYS_NFTABLES`: the resource that a batch is for.
const SUBSYSTEM: u16 = 10;

/// `NFT_TABLE_F_OWNER`: the table goes with the socket that made it.
const TABLE_OWNED: u32 = 0x2;

/// `NF_DROP` and `NF_ACCEPT` of `linux/netfilter.h`.
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// The kernel replaces `%d`, so that anonymous sets have names of their own.
const ANONYMOUS_SET: &str = "__set%d";

/// Members of a set in one message. An attribute holds at most 65,535 bytes, and a member takes at
/// most 76.
const MEMBERS_PER_MESSAGE: usize = 800;

/// `TYPE_BITS` of libnftables: bits of one type in the number of a concatenated type.
const DATATYPE_BITS: u32 = 6;

/// Changes that are made together or not at all.
pub(super) struct Batch {
    messages: Vec<(NetfilterMessage, u16)>,
    steps: Vec<String>,
    next_set_id: u32,
}

impl Batch {
    /// Puts `table` in the place of the one with its name.
    pub(super) fn replacing(table: &Table) -> Result<Self, NftError> {
        let mut batch = Self::begun();
        // The deletion needs something to delete.
        batch.push("find the old table", new_table(table), NLM_F_CREATE);
        batch.push("delete the old table", delete_table(&table.name), 0);
        batch.push("create the table", new_table(table), NLM_F_CREATE);
        for chain in &table.chains {
            batch.push_chain(&table.name, chain)?;
        }
        Ok(batch.ended())
    }

    /// Deletes a table.
    pub(super) fn deleting(name: &str) -> Self {
        let mut batch = Self::begun();
        batch.push("delete the table", delete_table(name), 0);
        batch.ended()
    }

    /// Number of messages, each of which takes a sequence number.
    pub(super) fn count(&self) -> u32 {
        // Bounded by memory long before: a message is an allocation.
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// What each message is to do.
    pub(super) fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The messages, numbered from `first_sequence`. The last change is to be acknowledged.
    pub(super) fn serialize(&self, first_sequence: u32) -> Vec<u8> {
        let last_change = self.messages.len() - 2;
        let mut bytes = Vec::new();
        for (position, (message, flags)) in self.messages.iter().enumerate() {
            let acknowledge = if position == last_change { NLM_F_ACK } else { 0 };
            let sequence = first_sequence + position as u32;
            bytes.extend(serialize(message.clone(), NLM_F_REQUEST | flags | acknowledge, sequence));
        }
        bytes
    }

    fn begun() -> Self {
        let mut batch = Self { messages: Vec::new(), steps: Vec::new(), next_set_id: 1 };
        batch.push_control("begin", ControlMessage::BatchBegin);
        batch
    }

    fn ended(mut self) -> Self {
        self.push_control("commit", ControlMessage::BatchEnd);
        self
    }

    fn push_control(&mut self, step: &str, message: ControlMessage) {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, VERSION, SUBSYSTEM);
        self.messages.push((NetfilterMessage::new(header, message), 0));
        self.steps.push(step.to_owned());
    }

    fn push(&mut self, step: impl Into<String>, message: NfTablesMessage, flags: u16) {
        self.messages.push((NetfilterMessage::new(netdev(), message), flags));
        self.steps.push(step.into());
    }

    fn push_chain(&mut self, table: &str, chain: &IngressChain) -> Result<(), NftError> {
        let interface = &chain.interface;
        let name = format!("ingress-{interface}");
        self.push(
            format!("create the chain on {interface}"),
            new_chain(table, &name, chain),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        for (index, rule) in chain.rules.iter().enumerate() {
            let invalid = |source| NftError::Rule { interface: interface.clone(), index, source };
            rule.matches.iter().try_for_each(Match::check).map_err(invalid)?;
            self.push_rule(table, &name, &format!("rule {index} on {interface}"), rule);
        }
        Ok(())
    }

    /// A rule, after the sets that it looks into.
    fn push_rule(&mut self, table: &str, chain: &str, what: &str, rule: &Rule) {
        let mut expressions = Vec::new();
        for condition in &rule.matches {
            match condition {
                Match::Payload(payload) => expressions.extend(payload_expressions(payload)),
                Match::Protocol(ethertype) => {
                    expressions
                        .extend(meta_expressions(MetaKey::EtherTypeProtocol, &ethertype.to_be_bytes()));
                }
                Match::TransportProtocol(number) => {
                    expressions.extend(meta_expressions(MetaKey::L4Proto, &[*number]));
                }
                Match::InSet { fields, members } => {
                    let id = self.push_set(table, what, fields, members);
                    expressions.extend(lookup_expressions(fields, id));
                }
            }
        }
        expressions
            .push(Expressions::Other { expression_type: "counter".to_owned(), attributes: Vec::new() });
        expressions.push(verdict_expression(rule.verdict));
        let message = NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.to_owned()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
            ],
        });
        self.push(format!("create {what}"), message, NLM_F_CREATE | NLM_F_APPEND);
    }

    /// A set without a name and its members. Returns the number that it has in this batch.
    fn push_set(
        &mut self,
        table: &str,
        what: &str,
        fields: &[PayloadField],
        members: &BTreeSet<Vec<u8>>,
    ) -> u32 {
        let id = self.next_set_id;
        self.next_set_id += 1;
        let set = new_set(table, id, fields, members.len());
        self.push(format!("create the set of {what}"), set, NLM_F_CREATE | NLM_F_EXCL);
        let members: Vec<_> = members.iter().map(|member| key_of(fields, member)).collect();
        for some in members.chunks(MEMBERS_PER_MESSAGE) {
            let elements = new_elements(table, id, some);
            self.push(format!("fill the set of {what}"), elements, NLM_F_CREATE);
        }
        id
    }
}

/// The bytes of a message, filled up so that another can follow.
pub(super) fn serialize(message: NetfilterMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

/// Asks for every table of the family.
pub(super) fn get_tables() -> NetfilterMessage {
    let message = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    NetfilterMessage::new(netdev(), message)
}

fn netdev() -> NetfilterHeader {
    NetfilterHeader::new(NetfilterProtoFamily::NetDev, VERSION, 0)
}

fn new_table(table: &Table) -> NfTablesMessage {
    let flags = match table.lifetime {
        Lifetime::Socket => TABLE_OWNED,
        Lifetime::Namespace => 0,
    };
    NfTablesMessage::NewTable(TableMessage {
        attributes: vec![
            TableAttribute::Name(table.name.clone()),
            TableAttribute::Flags(TableFlags::from_bits_retain(flags)),
        ],
    })
}

fn delete_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] })
}

fn new_chain(table: &str, name: &str, chain: &IngressChain) -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Dev(DevHookNumber::Ingress)),
                Hook::Priority(chain.priority.cast_unsigned()),
                Hook::NetDeviceName(chain.interface.clone()),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ],
    })
}

fn new_set(table: &str, id: u32, fields: &[PayloadField], size: usize) -> NfTablesMessage {
    let datatype = fields.iter().fold(0, |number, field| number << DATATYPE_BITS | number_of(field.datatype));
    // Both are bounded: by KEY_LEN_MAX, and by the memory that the members take.
    let key_len = u32::try_from(key_len(fields)).unwrap_or(u32::MAX);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(table.to_owned()),
            SetAttribute::Name(ANONYMOUS_SET.to_owned()),
            SetAttribute::Flags(SetFlags::Anonymous | SetFlags::Constant),
            SetAttribute::KeyType(datatype),
            SetAttribute::KeyLen(key_len),
            SetAttribute::Id(id),
            SetAttribute::Description(vec![SetDescription::Size(size)]),
        ],
    })
}

/// Numbers of libnftables (`enum datatypes`), which the kernel only keeps for `nft list`.
fn number_of(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Ipv4Address => 7,
        Datatype::Ipv6Address => 8,
        Datatype::InetService => 13,
    }
}

fn new_elements(table: &str, set_id: u32, keys: &[Vec<u8>]) -> NfTablesMessage {
    let element = |key: &Vec<u8>| {
        ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(key.clone()))])
    };
    NfTablesMessage::NewSetElement(SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(ANONYMOUS_SET.to_owned()),
            SetElementList::SetId(set_id),
            SetElementList::Elements(keys.iter().map(element).collect()),
        ],
    })
}

/// Loads the bytes, cuts out the bits, compares.
fn payload_expressions(wanted: &PayloadMatch) -> Vec<Expressions> {
    // Checked before: at most VALUE_LEN_MAX.
    let length = wanted.value.len() as u32;
    let mut expressions = vec![load(wanted.base, wanted.offset, length, Register::Reg1)];
    if let Some(mask) = &wanted.mask {
        expressions.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Mask(DataAttribute::Value(mask.clone())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]));
    }
    expressions.push(compare(wanted.relation, wanted.value.clone()));
    expressions
}

fn meta_expressions(key: MetaKey, value: &[u8]) -> [Expressions; 2] {
    let load = Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)]);
    [load, compare(Relation::Equal, value.to_vec())]
}

fn lookup_expressions(fields: &[PayloadField], set_id: u32) -> Vec<Expressions> {
    let mut expressions = Vec::new();
    let mut register = u32::from(Register::Reg32_00);
    for field in fields {
        let length = u32::from(field.length);
        expressions.push(load(field.base, field.offset, length, Register::from(register)));
        register += length.div_ceil(4);
    }
    expressions.push(Expressions::Lookup(vec![
        Lookup::Set(ANONYMOUS_SET.to_owned()),
        Lookup::SetId(set_id),
        Lookup::SourceRegister(Register::Reg32_00),
    ]));
    expressions
}

fn load(base: PayloadBase, offset: u8, length: u32, register: Register) -> Expressions {
    // enum nft_payload_bases
    let base = match base {
        PayloadBase::Link => 0,
        PayloadBase::Network => 1,
        PayloadBase::Transport => 2,
    };
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(u32::from(offset)),
        Payload::Len(length),
    ])
}

fn compare(relation: Relation, value: Vec<u8>) -> Expressions {
    let operator = match relation {
        Relation::Equal => Operator::Equal,
        Relation::NotEqual => Operator::NotEqual,
        Relation::AtLeast => Operator::GreatherThanEqual,
        Relation::AtMost => Operator::LessThanEqual,
    };
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn verdict_expression(verdict: Verdict) -> Expressions {
    let code = match verdict {
        Verdict::Drop => NF_DROP,
        Verdict::Accept => NF_ACCEPT,
    };
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(WireVerdict::Other(code))])),
    ])
}
