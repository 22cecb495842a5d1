//! Policy rules: which routing table a packet is looked up in.

use crate::netlink::Netlink;
use crate::prefix::IpPrefix;
use crate::route::{RouteTable, family_of};
use crate::transport::{NetlinkError, absent_is_false};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::net::IpAddr;

/// Packets with a source address in `from` are looked up in `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Source addresses; a length of 0 is every packet of the address family.
    pub from: IpPrefix,
    /// Table that they are looked up in.
    pub table: RouteTable,
    /// Position in the order of rules: lower is asked first. The kernel's own are 0 (local table),
    /// 32766 (main) and 32767 (default).
    pub priority: u32,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule from {} lookup {} priority {}", self.from, self.table, self.priority)
    }
}

impl Netlink {
    /// Adds a rule; one that exists already stays.
    pub fn add_rule(&mut self, rule: &PolicyRule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(rule.message());
        match self.change(&format!("add {rule}"), message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.already_exists() => Ok(()),
            result => result,
        }
    }

    /// Deletes a rule. Says whether it was there.
    pub fn delete_rule(&mut self, rule: &PolicyRule) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(rule.message());
        absent_is_false(self.change(&format!("delete {rule}"), message, 0))
    }

    /// Every rule that looks something up in a table, in order of priority. What a rule demands
    /// beyond the source address (marks, interfaces) is not shown.
    pub fn rules(&mut self) -> Result<Vec<PolicyRule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RuleMessage::default();
            query.header.family = family;
            let query = RouteNetlinkMessage::GetRule(query);
            let listed = self.dump("list rules", &query, |message| match message {
                RouteNetlinkMessage::NewRule(rule) => PolicyRule::from_message(&rule),
                _ => None,
            });
            match listed {
                // The kernel has no IPv6.
                Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => {}
                listed => rules.extend(listed?),
            }
        }
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }
}

impl PolicyRule {
    fn message(&self) -> RuleMessage {
        let from = self.from.network();
        let mut message = RuleMessage::default();
        message.header.family = family_of(from.address());
        message.header.src_len = from.length();
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Table(self.table.0),
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Protocol(RouteProtocol::Static),
        ];
        if from.length() > 0 {
            message.attributes.push(RuleAttribute::Source(from.address()));
        }
        message
    }

    /// `None` for rules that do something else than look up a table.
    fn from_message(message: &RuleMessage) -> Option<Self> {
        if message.header.action != RuleAction::ToTable {
            return None;
        }
        let everything = match message.header.family {
            AddressFamily::Inet => IpPrefix::ALL_IPV4,
            _ => IpPrefix::ALL_IPV6,
        };
        let mut source: IpAddr = everything.address();
        let mut table = RouteTable(u32::from(message.header.table));
        let mut priority = 0;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Source(address) => source = *address,
                RuleAttribute::Table(number) => table = RouteTable(*number),
                RuleAttribute::Priority(number) => priority = *number,
                _ => {}
            }
        }
        let from = IpPrefix::new(source, message.header.src_len).ok()?;
        Some(Self { from, table, priority })
    }
}
