//! Taking the data plane's packets, and only those, away from the kernel.
//!
//! Packet sockets see a frame before the ingress hook drops it, so the data plane has it and the kernel does not.
//! The table belongs to this process: when it ends, however it ends, the kernel has its packets again.

mod rules;
mod tagged;

use super::interest::Interest;
use crate::dataplane::traces::NFT_TABLE;
use dpr_host::nft::{IngressChain, Lifetime, NftError, Nftables, Table};

/// Before the chains of firewalls, which have 0 by convention: they would see packets that are not the kernel's.
const PRIORITY: i32 = -500;

/// What is taken away.
pub(crate) struct Diversion {
    nftables: Nftables,
    table: Table,
}

impl Diversion {
    /// Takes away what comes in on `interface` and is of `interest`, and keeps strangers from reaching delivery
    /// addresses directly.
    pub(crate) fn begin(interface: &str, interest: &Interest) -> Result<Self, NftError> {
        let rules = rules::of(interest);
        let chain = IngressChain { interface: interface.to_owned(), priority: PRIORITY, rules };
        let mut nftables = Nftables::open()?;
        let mut table = Table { name: NFT_TABLE.to_owned(), lifetime: Lifetime::Socket, chains: vec![chain] };
        match nftables.replace_table(&table) {
            Err(NftError::Netlink(error))
                if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
            {
                tracing::warn!(
                    "this kernel (before 5.12) keeps the packet filter of a killed process: after a crash the \
                     services are unreachable until dpr starts again, or until: nft delete table netdev {NFT_TABLE}"
                );
                table.lifetime = Lifetime::Namespace;
                nftables.replace_table(&table)?;
            }
            result => result?,
        }
        Ok(Self { nftables, table })
    }

    /// Takes away what is of `interest` from now on, and nothing else.
    pub(crate) fn change_to(&mut self, interest: &Interest) -> Result<(), NftError> {
        let rules = rules::of(interest);
        for chain in &mut self.table.chains {
            chain.rules.clone_from(&rules);
        }
        self.nftables.replace_table(&self.table)
    }

    /// Gives the packets back.
    pub(crate) fn end(mut self) -> Result<(), NftError> {
        self.nftables.delete_table(NFT_TABLE).map(drop)
    }
}
