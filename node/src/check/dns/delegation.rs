//! What the parent zone says about the zone, asked of the parent's own servers: caches may remember something older.

use super::super::finding::Finding;
use crate::config::Dns;
use dpr_rrdns::Name;
use dpr_rrdns::stub::{self, RecordType, Reply};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long a server may take to answer; it is asked twice.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Servers of the parent zone that are asked until one answers.
const SERVERS_MAX: usize = 4;

/// Port of the domain name system (RFC 1035 section 4.2).
const PORT: u16 = 53;

const RESOLVERS: &str = "/etc/resolv.conf";

/// Compares what the parent says with what it should say.
pub(super) fn check(dns: &Dns) -> Vec<Finding> {
    let unknown = |reason: &str| {
        let fact = format!("the delegation could not be checked: {reason}");
        vec![Finding::info("delegation", fact)]
    };
    let resolvers = resolvers(&std::fs::read_to_string(RESOLVERS).unwrap_or_default());
    let Some(resolver) = resolvers.first() else {
        return unknown("there is no resolver in /etc/resolv.conf");
    };
    match parents_word(dns.zone.apex(), *resolver) {
        Ok(reply) => compare(dns, &reply),
        Err(reason) => unknown(&reason),
    }
}

/// Addresses of `nameserver` lines, resolv.conf(5).
fn resolvers(text: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    addresses.filter_map(|rest| rest.trim().parse().ok()).collect()
}

/// The referral, or answer, that one of the parent's servers gives.
fn parents_word(apex: &Name, resolver: IpAddr) -> Result<Reply, String> {
    let servers = parents_servers(apex, resolver)?;
    for server in servers.iter().take(SERVERS_MAX) {
        let reply = ask(resolver, server, RecordType::A)?;
        for (address, _) in reply.addresses {
            if let Ok(reply) = ask(address, apex, RecordType::NS) {
                return Ok(reply);
            }
        }
    }
    Err("none of the parent zone's servers answers".to_owned())
}

/// Name servers of the closest zone above.
fn parents_servers(apex: &Name, resolver: IpAddr) -> Result<Vec<Name>, String> {
    for above in apex.iter_suffixes().skip(1) {
        let servers = ask(resolver, &above, RecordType::NS)?.name_servers;
        if !servers.is_empty() {
            return Ok(servers);
        }
    }
    Err("no zone above it was found".to_owned())
}

fn ask(server: IpAddr, name: &Name, rtype: RecordType) -> Result<Reply, String> {
    // The source port, chosen by the kernel, is as hard to guess as an ID.
    let question = stub::question(std::process::id() as u16, name, rtype);
    let server = SocketAddr::new(server, PORT);
    let exchange = || -> io::Result<Reply> {
        let reply = stub::read(&by_udp(server, &question)?).map_err(io::Error::other)?;
        if !reply.truncated {
            return Ok(reply);
        }
        stub::read(&by_tcp(server, &question)?).map_err(io::Error::other)
    };
    exchange().map_err(|error| format!("asking {server} for {name}: {error}"))
}

fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        socket.send(question)?;
        match socket.recv(&mut buffer) {
            Ok(length) if stub::is_reply_to(&buffer[..length], question) => {
                return Ok(buffer[..length].to_vec());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no answer"))
}

fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let answer = stub::exchange(&mut stream, question)?;
    if !stub::is_reply_to(&answer, question) {
        return Err(io::Error::other("it answers something else"));
    }
    Ok(answer)
}

fn compare(dns: &Dns, said: &Reply) -> Vec<Finding> {
    let mend = "give the parent zone's operator the records above";
    if said.name_servers.is_empty() {
        let problem = format!("the parent zone does not delegate {}", dns.zone.apex());
        return vec![Finding::warning("delegation", problem, mend)];
    }
    let wanted: BTreeSet<&Name> = dns.name_servers.iter().map(|(name, _)| name).collect();
    let found: BTreeSet<&Name> = said.name_servers.iter().collect();
    let mut problem = String::new();
    for name in wanted.difference(&found) {
        let _ = write!(problem, "it lacks {name}; ");
    }
    for name in found.difference(&wanted) {
        let _ = write!(problem, "it names {name}, which dns.ns does not; ");
    }
    for (name, addresses) in &dns.name_servers {
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let glue = said.glue.iter().filter(|(owner, _)| owner == name);
        let glue: BTreeSet<IpAddr> = glue.map(|(_, address)| *address).collect();
        // Servers leave glue out where it does not fit; other addresses are wrong.
        for address in glue.difference(&wanted) {
            let _ = write!(problem, "it says that {name} is {address}; ");
        }
    }
    if problem.is_empty() {
        return vec![Finding::info("delegation", format!("the parent zone delegates {}", dns.zone.apex()))];
    }
    let problem = format!("the parent zone is not as dns.ns: {}", problem.trim_end_matches("; "));
    vec![Finding::warning("delegation", problem, mend)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::dns;
    use super::*;
    use dpr_rrdns::parse_name;

    fn name(text: &str) -> Name {
        parse_name(text, None).unwrap()
    }

    fn said(servers: &[&str], glue: &[(&str, &str)]) -> Reply {
        Reply {
            name_servers: servers.iter().map(|server| name(server)).collect(),
            glue: glue.iter().map(|(owner, address)| (name(owner), address.parse().unwrap())).collect(),
            ..Reply::default()
        }
    }

    #[test]
    fn a_delegation_as_it_should_be_is_no_problem() {
        let good = said(&["ns1.example.org", "NS.example.net"], &[("ns1.example.org", "192.0.2.11")]);

        let findings = compare(&dns(""), &good);

        assert_eq!(findings, [Finding::info("delegation", "the parent zone delegates example.org")]);
    }

    #[test]
    fn every_difference_is_named() {
        let bad = said(&["ns1.example.org", "old.example.net"], &[("ns1.example.org", "192.0.2.99")]);

        let findings = compare(&dns(""), &bad);

        assert_eq!(
            findings[0].problem,
            "the parent zone is not as dns.ns: it lacks ns.example.net; it names old.example.net, which dns.ns \
             does not; it says that ns1.example.org is 192.0.2.99"
        );
        assert!(compare(&dns(""), &Reply::default())[0].problem.contains("does not delegate"));
    }

    #[test]
    fn resolvers_are_read_as_the_system_writes_them() {
        let text =
            "# nameserver 10.0.0.1\nsearch example.org\nnameserver 192.0.2.53\nnameserver\t2001:db8::53\n";

        assert_eq!(resolvers(text), ["192.0.2.53", "2001:db8::53"].map(|a| a.parse::<IpAddr>().unwrap()));
    }
}
