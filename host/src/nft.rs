//! nftables: taking packets away from the kernel's own network stack.
//!
//! The user-space data plane sees a copy of every frame (packet sockets come before the ingress
//! hook) and must keep the kernel from handling the same packet a second time. It does so with one
//! table of the netdev family: an ingress chain for each interface, whose rules drop what the data
//! plane takes care of. Everything else is untouched.
//!
//! Constants are those of `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`. Only what
//! is needed for this is here: no jumps, no maps, no other families.

mod message;
mod rule;

pub use rule::{
    Datatype, InvalidMatch, Match, PayloadBase, PayloadField, PayloadMatch, Relation, Rule, Verdict,
};

use crate::transport::{Consistency, End, NetlinkError, Requests, Transport, absent_is_false};
use message::Batch;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

/// How often a list that the kernel calls inconsistent is asked for again.
const DUMP_ATTEMPTS_MAX: u32 = 8;

/// Why the packet filter could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel refused, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A rule cannot be written down.
    #[error("nft chain on {interface}, rule {index}: {source}")]
    Rule {
        /// Interface of the chain.
        interface: String,
        /// Position of the rule in the chain, from 0.
        index: usize,
        /// What is wrong with it.
        source: InvalidMatch,
    },
}

/// When a table goes away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// When the [`Nftables`] that made it is dropped or its process dies, however it dies: then the
    /// kernel handles the packets again. Nobody else can change the table. (Linux 5.12 or later.)
    Socket,
    /// Never.
    Namespace,
}

/// The rules for packets that come in by one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressChain {
    /// Name of the interface. It must exist, and the chain goes with it; since Linux 6.16 the chain
    /// waits for an interface of this name instead.
    pub interface: String,
    /// Position among the chains on the interface: lower is asked first.
    pub priority: i32,
    /// Rules; a packet that matches none is accepted.
    pub rules: Vec<Rule>,
}

/// A table of the netdev family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, unique within the family.
    pub name: String,
    /// When it goes away by itself.
    pub lifetime: Lifetime,
    /// At most one for each interface.
    pub chains: Vec<IngressChain>,
}

/// A socket to the packet filter of the network namespace in which it was opened.
pub struct Nftables {
    transport: Transport,
}

impl Nftables {
    /// A close-on-exec `NETLINK_NETFILTER` socket. Needs `CAP_NET_ADMIN` to change anything.
    pub fn open() -> Result<Self, NftError> {
        let transport = Transport::open(netlink_sys::protocols::NETLINK_NETFILTER, "open nftables")?;
        Ok(Self { transport })
    }

    /// Puts `table` in the place of the one with its name, if there is one, all at once: every
    /// packet meets either the old rules or the new ones. If it fails, the old ones stay.
    pub fn replace_table(&mut self, table: &Table) -> Result<(), NftError> {
        let batch = Batch::replacing(table)?;
        Ok(self.commit(&format!("replace nft table {}", table.name), &batch)?)
    }

    /// Deletes a table and all that is in it. Says whether it was there.
    pub fn delete_table(&mut self, name: &str) -> Result<bool, NftError> {
        let batch = Batch::deleting(name);
        Ok(absent_is_false(self.commit(&format!("delete nft table {name}"), &batch))?)
    }

    /// Whether there is a table of the netdev family with this name, whoever made it.
    pub fn has_table(&mut self, name: &str) -> Result<bool, NftError> {
        Ok(self.tables()?.iter().any(|table| table == name))
    }

    /// Names of all tables of the netdev family.
    pub fn tables(&mut self) -> Result<Vec<String>, NftError> {
        const OPERATION: &str = "list nft tables";
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let sequence = self.transport.reserve_sequences(1);
            let bytes = message::serialize(message::get_tables(), NLM_F_REQUEST | NLM_F_DUMP, sequence);
            let mut names = Vec::new();
            let requests = Requests::one(OPERATION, &bytes, sequence, End::Dump);
            let consistency = self.transport.converse(requests, |kind, payload| {
                names.extend(table_name(OPERATION, kind, payload)?);
                Ok(())
            })?;
            if consistency == Consistency::Consistent {
                return Ok(names);
            }
        }
        Err(NetlinkError::DumpInterrupted { operation: OPERATION.to_owned(), attempts: DUMP_ATTEMPTS_MAX }
            .into())
    }

    fn commit(&mut self, operation: &str, batch: &Batch) -> Result<(), NetlinkError> {
        let first_sequence = self.transport.reserve_sequences(batch.count());
        let requests = Requests {
            operation,
            steps: batch.steps(),
            bytes: &batch.serialize(first_sequence),
            first_sequence,
            // The end of a batch is not acknowledged before Linux 6.10; the message before it is.
            last_sequence: first_sequence + batch.count() - 2,
            end: End::Acknowledgement,
        };
        self.transport.converse(requests, |_, _| Ok(())).map(drop)
    }
}

fn table_name(operation: &str, kind: u16, payload: &[u8]) -> Result<Option<String>, NetlinkError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    let message = NetfilterMessage::deserialize(&header, payload)
        .map_err(|error| NetlinkError::malformed(operation, error.to_string()))?;
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = message.inner else {
        return Ok(None);
    };
    Ok(table.attributes.into_iter().find_map(|attribute| match attribute {
        TableAttribute::Name(name) => Some(name),
        _ => None,
    }))
}
