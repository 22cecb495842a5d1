//! The DNS server's sockets, and whether the parent zone leads to it.

mod delegation;

use super::finding::Finding;
use crate::config::{Config, Dns};
use std::net::{IpAddr, SocketAddr};

/// Looks at everything; nothing if there is no DNS server.
pub(super) fn check(config: &Config, is_running: bool) -> Vec<Finding> {
    let Some(dns) = &config.dns else { return vec![] };
    let mut findings = Vec::new();
    if !is_running && let Err(error) = crate::dns::probe(dns) {
        let mend = "let nothing else listen there (`ss -lntup`), or run the check as root";
        findings.push(Finding::error("dns.listen", format!("it cannot be opened: {error:#}"), mend));
    }
    findings.extend(unlisted(dns));
    findings.push(Finding::info("dns.ns", format!("the parent zone needs these records:\n{}", records(dns))));
    findings.extend(delegation::check(dns));
    findings
}

/// Addresses that this node listens on and that no name server has, so that nobody asks there.
fn unlisted(dns: &Dns) -> Option<Finding> {
    let known: Vec<&IpAddr> = dns.name_servers.iter().flat_map(|(_, addresses)| addresses).collect();
    let is_known = |socket: &SocketAddr| known.contains(&&socket.ip());
    if dns.listen.iter().any(is_known) || dns.listen.iter().any(|socket| socket.ip().is_loopback()) {
        return None;
    }
    let problem =
        "none of the addresses in dns.listen is a name server's in dns.ns: nobody would ask this node";
    Some(Finding::warning("dns.ns", problem, "add this node's address to dns.ns, on every node"))
}

/// Delegation and glue as lines of the parent's zone file.
fn records(dns: &Dns) -> String {
    let apex = dns.zone.apex();
    let delegation = dns.name_servers.iter().map(|(name, _)| format!("  {apex}. NS {name}."));
    let glue = dns.name_servers.iter().flat_map(|(name, addresses)| {
        addresses.iter().map(move |address| {
            let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
            format!("  {name}. {rtype} {address}")
        })
    });
    delegation.chain(glue).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Defaults;
    use std::path::Path;

    pub(in crate::check) fn dns(extra: &str) -> Dns {
        let text = format!(
            "[node]\naddress = \"192.0.2.11\"\n[[service]]\n[dns]\nzone = \"example.org\"\n\
             ns = {{ ns1 = [\"192.0.2.11\", \"2001:db8::11\"], \"ns.example.net.\" = [] }}\n{extra}"
        );
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        Config::parse(Path::new("a.toml"), &text, &defaults).unwrap().dns.unwrap()
    }

    #[test]
    fn the_parents_records_are_delegation_and_glue() {
        let expected = "  example.org. NS ns.example.net.\n  example.org. NS ns1.example.org.\n  \
                        ns1.example.org. A 192.0.2.11\n  ns1.example.org. AAAA 2001:db8::11";

        assert_eq!(records(&dns("")), expected);
    }

    #[test]
    fn a_node_that_no_name_server_leads_to_is_found() {
        assert_eq!(unlisted(&dns("")), None);
        assert!(unlisted(&dns("listen = [\"192.0.2.12\"]\n")).is_some());
        assert_eq!(unlisted(&dns("listen = [\"127.0.0.1:5353\"]\n")), None);
    }
}
