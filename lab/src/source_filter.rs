//! A switch port that checks sources (RFC 2827): what a machine sends from addresses that it does not have is lost.

use crate::error::LabError;
use crate::switch::{Port, Switch};
use dpr_host::nft::{IngressChain, Lifetime, Match, NftError, Nftables, PayloadBase, Rule, Table, Verdict};
use std::net::IpAddr;

/// EtherTypes (RFC 894, RFC 2464).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The filter, for as long as this lives.
#[must_use]
pub struct SourceFilter {
    /// Its socket owns the rules.
    _nftables: Nftables,
}

impl SourceFilter {
    pub(crate) fn begin(switch: &Switch, port: &Port, own: &[IpAddr]) -> Result<Self, LabError> {
        let doing = format!("check sources at {}", port.name());
        let rules = vec![rule(IPV4, own), rule(IPV6, own)];
        let chain = IngressChain { interface: port.name().to_owned(), priority: 0, rules };
        let table = Table { name: port.name().to_owned(), lifetime: Lifetime::Socket, chains: vec![chain] };
        let begin = || {
            let mut nftables = Nftables::open()?;
            nftables.replace_table(&table)?;
            Ok::<_, NftError>(Self { _nftables: nftables })
        };
        switch.namespace().enter(begin).map_err(LabError::host(&doing))?.map_err(LabError::host(&doing))
    }
}

/// Drops everything of an IP version but what comes from `own` addresses, and from the link's own ones of IPv6.
fn rule(ethertype: u16, own: &[IpAddr]) -> Rule {
    let mut matches = vec![Match::untagged_ethertype(ethertype)];
    for address in own {
        match address {
            IpAddr::V4(v4) if ethertype == IPV4 => {
                matches.push(Match::other_than(PayloadBase::Network, 12, &[0xff; 4], &v4.octets()));
            }
            IpAddr::V6(v6) if ethertype == IPV6 => {
                matches.push(Match::other_than(PayloadBase::Network, 8, &[0xff; 16], &v6.octets()));
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
    }
    if ethertype == IPV6 {
        matches.push(Match::other_than(PayloadBase::Network, 8, &[0xff, 0xc0], &[0xfe, 0x80]));
    }
    Rule { matches, verdict: Verdict::Drop }
}
