//! Rules for untagged frames made into rules for frames of a VLAN.
//!
//! The kernel understands what is behind one tag. Behind two it knows neither protocol nor headers, so that rules then look
//! at bytes of the frame, and only at packets whose headers have the ordinary length.

use crate::config::Vlan;
use dpr_host::nft::{Datatype, Match, PayloadBase, PayloadField, PayloadMatch, Rule};
use dpr_rewrite::Version;
use dpr_rewrite::ethernet::{self, TAG_LEN, VLAN_IDENTIFIER, ethertype};
use std::collections::BTreeSet;

/// Where the EtherType of an untagged frame stands.
const ETHERTYPE_AT: u8 = (ethernet::HEADER_LEN - 2) as u8;
const TAG: u8 = TAG_LEN as u8;

/// What `rule`, one for untagged IP packets, is for those of `vlan`.
pub(super) fn of_vlan(rule: &Rule, vlan: Vlan) -> Rule {
    let tags = vlan.tags();
    let mut matches = Vec::new();
    let mut at = ETHERTYPE_AT;
    for tag in tags.as_slice() {
        matches.push(announces_a_tag(at));
        let identifier = Match::masked_payload(
            PayloadBase::Link,
            at + 2,
            &VLAN_IDENTIFIER.to_be_bytes(),
            &tag.vlan().to_be_bytes(),
        );
        matches.push(identifier);
        at += TAG;
    }
    let is_v6 = rule.matches.contains(&Match::untagged_ethertype(ethertype::IPV6));
    let version = if is_v6 { Version::V6 } else { Version::V4 };
    let behind_two = tags.as_slice().len() > 1;
    for condition in &rule.matches {
        match condition {
            Match::Payload(payload) if payload.base == PayloadBase::Link => {
                matches.push(Match::Payload(PayloadMatch { offset: at, ..payload.clone() }));
                matches.extend(behind_two.then(|| has_ordinary_header(version)));
            }
            condition if behind_two => matches.push(behind_a_tag(condition, version)),
            condition => matches.push(condition.clone()),
        }
    }
    Rule { matches, verdict: rule.verdict }
}

fn announces_a_tag(offset: u8) -> Match {
    // One of two numbers, which `nft list` would show as ports whatever they are called here.
    let field = PayloadField { base: PayloadBase::Link, offset, length: 2, datatype: Datatype::InetService };
    let announce = [ethertype::VLAN, ethertype::PROVIDER_VLAN];
    Match::InSet {
        fields: vec![field],
        members: announce.map(|number| number.to_be_bytes().to_vec()).into_iter().collect::<BTreeSet<_>>(),
    }
}

/// An IP header without options behind the second tag, where the kernel sees the first header.
fn has_ordinary_header(version: Version) -> Match {
    let (mask, first) = match version {
        Version::V4 => (0xff, 0x45),
        Version::V6 => (0xf0, 0x60),
    };
    Match::masked_payload(PayloadBase::Network, TAG, &[mask], &[first])
}

fn behind_a_tag(condition: &Match, version: Version) -> Match {
    let moved = |base, offset| match base {
        PayloadBase::Transport => offset + TAG + version.header_len() as u8, // 20 or 40.
        PayloadBase::Link | PayloadBase::Network => offset + TAG,
    };
    match condition {
        Match::TransportProtocol(number) => {
            let protocol_at = match version {
                Version::V4 => 9,
                Version::V6 => 6,
            };
            Match::payload(PayloadBase::Network, protocol_at + TAG, &[*number])
        }
        Match::Payload(payload) => Match::Payload(PayloadMatch {
            base: PayloadBase::Network,
            offset: moved(payload.base, payload.offset),
            ..payload.clone()
        }),
        Match::InSet { fields, members } => {
            let fields = fields.iter().map(|field| PayloadField {
                base: PayloadBase::Network,
                offset: moved(field.base, field.offset),
                ..*field
            });
            Match::InSet { fields: fields.collect(), members: members.clone() }
        }
        Match::Protocol(_) => condition.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::Protocol;
    use std::net::SocketAddr;

    fn vlan(text: &str) -> Vlan {
        Vlan::parse(text).unwrap()
    }

    fn web() -> Rule {
        let socket: SocketAddr = "192.0.2.1:80".parse().unwrap();
        Rule::drop_to_any(Protocol::Tcp, [socket]).remove(0)
    }

    #[test]
    fn behind_one_tag_only_the_frame_header_is_longer() {
        let rule = of_vlan(&web(), vlan("100"));
        assert_eq!(
            rule.matches[..3],
            [
                announces_a_tag(12),
                Match::masked_payload(PayloadBase::Link, 14, &[0x0f, 0xff], &[0, 100]),
                Match::payload(PayloadBase::Link, 16, &[8, 0]),
            ]
        );
        assert_eq!(rule.matches[3..], web().matches[1..]);
    }

    #[test]
    fn behind_two_tags_everything_is_counted_from_the_second_one() {
        let rule = of_vlan(&web(), vlan("200.7"));
        let in_network = |offset, bytes: &[u8]| Match::payload(PayloadBase::Network, offset, bytes);
        assert_eq!(rule.matches[4], Match::payload(PayloadBase::Link, 20, &[8, 0]));
        assert_eq!(rule.matches[5], Match::masked_payload(PayloadBase::Network, 4, &[0xff], &[0x45]));
        assert_eq!(rule.matches[6], in_network(13, &[6]));
        let Match::InSet { fields, .. } = &rule.matches[7] else { panic!("{:?}", rule.matches) };
        let places: Vec<_> = fields.iter().map(|field| (field.base, field.offset)).collect();
        assert_eq!(places, [(PayloadBase::Network, 20), (PayloadBase::Network, 26)]);
    }
}
