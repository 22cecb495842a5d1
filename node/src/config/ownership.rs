//! `[ownership]`: which nodes agree on who decides for connections, and what they need for it.

use super::choice::GiveBack;
use super::finding::Finding;
use super::keys::Keys;
use super::network::{HostAddress, read_list};
use super::schema::Presence::{Default, Otherwise};
use super::schema::table;
use super::value::{Value, wrong, wrong_kind};
use dpr_model::{MacAddress, NodeId};
use dpr_ownership::agreement::Quorum;
use dpr_ownership::{SlotCount, VOTERS_MAX};
use std::net::IpAddr;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

table! {
    /// Agreement on who decides for which connections: see docs/ownership.md.
    OwnershipKeys "[ownership]" {
        /// Nodes that found the cluster: the same list on all nodes, kept for good, as what they agree on later names its
        /// own voters. With it, nodes agree on an ownership map. An odd number survives the death of nearly half.
        voters: VoterList = "voters", Otherwise("no agreement: every service address is its node's alone, and dies with it"),
            OnRestart;
        /// What it takes to own what others could own. With `majority` more than half of the voters have to consent, so
        /// that a cluster in two parts has one owner for everything; two nodes cannot lose one. With `none` the silent
        /// are not asked: each part of a cut network has owners for everything. Two voters can have a witness that is no
        /// node, such as the clients' gateway: `witness:` and addresses in one place, of which one has to answer echo
        /// requests. It is safe if two nodes that both reach it reach each other: read docs/decisions/0038-witness.md.
        quorum: QuorumRule = "quorum", Default("\"majority\""), OnRestart;
        /// Hosts on the clients' network that answer echo requests, such as its routers. A node that none of them answers for
        /// a second owns nothing, as long as another node gets answers: clients would not reach it.
        ping: Hosts = "ping", Default("[]"), OnRestart;
        /// Whether a node that returns gets its service addresses back by itself. With `manual` those who stood in for it keep
        /// them until `dpr takeover --give-back`, so that a node that comes and goes moves nothing. A service address that is
        /// the node address returns in any case. The same on all nodes.
        give_back: GiveBack = "give-back", Default("\"auto\""), OnRestart;
        /// Into how many slots the connections of an address are divided. Counts when the cluster is founded; the same on all
        /// nodes.
        slots: Slots = "slots", Default("4096"), OnRestart;
    }
}

/// How nodes agree on owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// Nodes that found the cluster, by id; 1 to 9.
    pub(crate) voters: Vec<NodeId>,
    /// What it takes to own what others could own.
    pub(crate) quorum: Quorum,
    /// Hosts one of which has to answer a node that counts on the witness.
    pub(crate) witnesses: Vec<IpAddr>,
    /// Hosts by which a node judges whether clients reach it.
    pub(crate) ping: Vec<IpAddr>,
    /// Whether homes that return get their addresses back by themselves.
    pub(crate) give_back: GiveBack,
    /// How many slots there are when the cluster is founded.
    pub(crate) slots: SlotCount,
}

/// The settings that `keys` describe. `Some(None)`: there are no voters, so nobody agrees on anything.
pub(super) fn ownership(keys: &Keys, findings: &mut Vec<Finding>) -> Option<Option<Ownership>> {
    let own = &keys.ownership;
    let Some(voters) = &own.voters else {
        let quorum = own.quorum.as_ref().filter(|quorum| quorum.value != QuorumRule::default());
        let slots = own.slots.as_ref().filter(|slots| slots.value.0 != SlotCount::default());
        let ping = own.ping.as_ref().filter(|ping| !ping.value.0.is_empty());
        let places = [quorum.map(|key| &key.at), slots.map(|key| &key.at), ping.map(|key| &key.at)];
        let place: Option<Range<usize>> = places.into_iter().flatten().next().cloned();
        let Some(place) = place else { return Some(None) };
        let instead =
            "add `voters = [\"192.0.2.11\", …]`: the node addresses of all nodes that found the cluster";
        findings.push(Finding::new(place, "without voters nobody agrees on owners", instead));
        return None;
    };
    let quorum = own.quorum.as_ref()?;
    let count = voters.value.0.len();
    if quorum.value.quorum == Quorum::Witness && count != 2 {
        let instead = "write `\"majority\"`, which is safe whatever the network does, or name two voters";
        let problem = format!("a witness is for two voters, and these are {count}");
        findings.push(Finding::new(quorum.at.clone(), problem, instead));
        return None;
    }
    Some(Some(Ownership {
        voters: voters.value.0.clone(),
        quorum: quorum.value.quorum,
        witnesses: quorum.value.witnesses.clone(),
        ping: own.ping.as_ref()?.value.0.clone(),
        give_back: own.give_back.as_ref()?.value,
        slots: own.slots.as_ref()?.value.0,
    }))
}

/// Nodes that found the cluster, by node address or id; 1 to [`VOTERS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VoterList(Vec<NodeId>);

impl Value for VoterList {
    fn expected() -> String {
        format!(
            "a list of 1 to {VOTERS_MAX} node addresses such as `[\"192.0.2.11\", \"192.0.2.12\"]`; for a node with a \
             `node.id`, that number as a string"
        )
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let voters = read_list(value, &Self::expected(), VOTERS_MAX, |text| match text.parse() {
            Ok(id) if id > 0 && !NodeId(id).is_external() => Ok(NodeId(id)),
            Ok(id) => Err(format!("{id} is no node's id")),
            Err(_) => HostAddress::parse(text).map(NodeId::from_address),
        })?;
        if voters.is_empty() {
            let instead = "name them, or remove the key";
            return wrong(value, "nobody founds a cluster without voters", instead);
        }
        Ok(Self(voters))
    }
}

/// Hosts on the clients' network at most, of each kind.
const HOSTS_MAX: usize = 8;

/// What it takes to own, and who is the witness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuorumRule {
    quorum: Quorum,
    witnesses: Vec<IpAddr>,
}

impl Value for QuorumRule {
    fn expected() -> String {
        "`\"majority\"` or `\"none\"` or `\"witness:192.0.2.1\"`, with up to 8 addresses".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        let instead = format!("write {}", Self::expected());
        match text.split_once(':') {
            None if text == "majority" => Ok(Self::default()),
            None if text == "none" => Ok(Self { quorum: Quorum::None, witnesses: Vec::new() }),
            Some(("witness", hosts)) => {
                let hosts: Result<Vec<IpAddr>, String> =
                    hosts.split(',').map(|host| HostAddress::parse(host.trim())).collect();
                match hosts {
                    Ok(witnesses) if witnesses.len() <= HOSTS_MAX => {
                        Ok(Self { quorum: Quorum::Witness, witnesses })
                    }
                    Ok(witnesses) => {
                        wrong(value, format!("{} addresses are too many", witnesses.len()), instead)
                    }
                    Err(problem) => wrong(value, problem, instead),
                }
            }
            _ => wrong(value, format!("{text:?} means nothing here"), instead),
        }
    }
}

/// Addresses of hosts, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<IpAddr>);

impl Value for Hosts {
    fn expected() -> String {
        format!("a list of at most {HOSTS_MAX} addresses such as `[\"192.0.2.1\"]`")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), HOSTS_MAX, HostAddress::parse).map(Self)
    }
}

/// A power of two from 16 to 32,768.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(SlotCount);

impl Value for Slots {
    fn expected() -> String {
        format!("a power of two from {} to {}", SlotCount::MIN.get(), SlotCount::MAX.get())
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(number) = value.get_ref().as_integer() else { return wrong_kind(value) };
        let count = u16::from_str_radix(number.as_str(), number.radix()).ok().and_then(SlotCount::new);
        count.map_or_else(
            || wrong(value, format!("{} is none", number.as_str()), format!("write {}", Self::expected())),
            |count| Ok(Self(count)),
        )
    }
}

/// A MAC address that several nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedMac(pub(crate) MacAddress);

impl Value for SharedMac {
    fn expected() -> String {
        "a MAC address such as `\"02:00:5e:00:00:63\"`, neither zero nor broadcast".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        match text
            .parse::<MacAddress>()
            .ok()
            .filter(|mac| ![MacAddress::default(), MacAddress::BROADCAST].contains(mac))
        {
            Some(mac) => Ok(Self(mac)),
            None => wrong(value, format!("{text:?} is none"), format!("write {}", Self::expected())),
        }
    }
}
