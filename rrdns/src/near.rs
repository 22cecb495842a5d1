//! Which nodes are near which clients, as the operator says; and how far an answer that follows from it may be cached.

use crate::prefix::Prefix;
use std::net::IpAddr;

/// Clients of one network are given addresses of another, as long as there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// The clients' network.
    pub clients: Prefix,
    /// Network of the service addresses that are near them.
    pub addresses: Prefix,
}

/// The rule of the longest network that contains `client`, by its position.
pub(crate) fn rule_for(rules: &[Near], client: IpAddr) -> Option<usize> {
    let matching = rules.iter().enumerate().filter(|(_, rule)| rule.clients.contains(client));
    matching.max_by_key(|(_, rule)| rule.clients.length()).map(|(position, _)| position)
}

/// SCOPE PREFIX-LENGTH: the largest network around `client` all of whose addresses get the same answer.
///
/// RFC 7871 section 7.2.1: a scope must not cover clients for whom there is a more specific answer.
pub(crate) fn scope(rules: &[Near], client: IpAddr) -> u8 {
    let needed = |rule: &Near| {
        let common = rule.clients.common_bits(client)?;
        // Within the rule's network: as long as it. Outside: one bit beyond where the ways part.
        Some(if common == rule.clients.length() { common } else { common + 1 })
    };
    rules.iter().filter_map(needed).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> [Near; 2] {
        let near = |clients: &str, addresses: &str| Near {
            clients: clients.parse().unwrap(),
            addresses: addresses.parse().unwrap(),
        };
        [near("10.0.0.0/8", "192.0.2.0/25"), near("10.1.0.0/16", "192.0.2.128/25")]
    }

    #[test]
    fn the_longest_network_decides() {
        let rule = |client: &str| rule_for(&rules(), client.parse().unwrap());

        assert_eq!(rule("10.1.2.3"), Some(1));
        assert_eq!(rule("10.2.2.3"), Some(0));
        assert_eq!(rule("192.0.2.1"), None);
    }

    #[test]
    fn a_scope_never_covers_clients_with_another_answer() {
        let scope = |client: &str| scope(&rules(), client.parse().unwrap());

        assert_eq!(scope("10.1.2.3"), 16);
        // 10.2/15 is the largest network around it without 10.1/16.
        assert_eq!(scope("10.2.2.3"), 15);
        assert_eq!(scope("10.128.0.0"), 9);
        // 11/8 differs from 10/8 in its eighth bit.
        assert_eq!(scope("11.0.0.0"), 8);
        assert_eq!(scope("192.0.2.1"), 1);
        assert_eq!(super::scope(&[], "10.0.0.1".parse().unwrap()), 0);
    }
}
