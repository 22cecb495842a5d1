//! Kinds of values that only `[dns]` has.

use super::finding::Finding;
use super::network::read_list;
use super::value::{Bounded, Value, wrong, wrong_kind};
use dpr_rrdns::{Name, Near, Prefix, parse_name};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use toml::Spanned;
use toml::de::DeValue;

/// An absolute domain name, with or without its final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainName(pub(crate) Name);

impl Value for DomainName {
    fn expected() -> String {
        "a domain name such as `\"example.org\"`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        match parse_name(text, None) {
            Ok(name) if name.label_count() > 1 => Ok(Self(name)),
            Ok(_) => wrong(value, "the root is nobody's zone", format!("write {}", Self::expected())),
            Err(error) => wrong(value, error.to_string(), format!("write {}", Self::expected())),
        }
    }
}

/// Sockets to listen on; up to 16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sockets(pub(crate) Vec<SocketAddr>);

/// Port of the domain name system (RFC 1035 section 4.2).
pub(crate) const DNS_PORT: u16 = 53;

impl Value for Sockets {
    fn expected() -> String {
        format!(
            "a list of 1 to 16 addresses of this host such as `[\"192.0.2.11\", \"[2001:db8::11]:5353\"]` (port \
             {DNS_PORT} unless told)"
        )
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let list = read_list(value, &Self::expected(), 16, |text| {
            let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
            let Ok(socket) = bare.or_else(|_| text.parse::<SocketAddr>()) else {
                return Err(format!("{text:?} is no address"));
            };
            match socket.ip() {
                // A reply has to leave from the address that was asked.
                ip if ip.is_unspecified() => Err(format!("{ip} is no single address")),
                ip if ip.is_multicast() => Err(format!("{ip} is a multicast address")),
                _ if socket.port() == 0 => Err("port 0 cannot be asked".to_owned()),
                _ => Ok(socket),
            }
        })?;
        if list.is_empty() { wrong_kind(value) } else { Ok(Self(list)) }
    }
}

/// Names of services, relative to the zone, with the port whose addresses they give; up to 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceNames(pub(crate) BTreeMap<String, u16>);

impl Value for ServiceNames {
    fn expected() -> String {
        "a table of up to 64 names and service ports such as `{ \"@\" = 80, www = 80, api = 8080 }`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_table(value, 64, |_, port| Bounded::<1, 65_535>::read(port).map(Bounded::get::<u16>)).map(Self)
    }
}

/// Name servers, each with its addresses; up to 13.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameServers(pub(crate) BTreeMap<String, Vec<IpAddr>>);

impl Value for NameServers {
    fn expected() -> String {
        "a table of 1 to 13 name servers with their addresses such as `{ ns1 = [\"192.0.2.11\"], ns2 = \
         [\"192.0.2.12\"] }`; those of other zones with `[]`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let servers = read_table(value, 13, |_, addresses| {
            read_list(addresses, "a list of addresses such as `[\"192.0.2.11\"]`", 8, |text| {
                text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address"))
            })
        })?;
        if servers.is_empty() { wrong_kind(value) } else { Ok(Self(servers)) }
    }
}

/// Lines of a master file; up to 1000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lines(pub(crate) Vec<String>);

impl Value for Lines {
    fn expected() -> String {
        "a list of up to 1000 records as in a zone file, such as `[\"@ 3600 MX 10 mail.example.net.\"]`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), 1000, |text| match text {
            "" => Err("an empty string is no record".to_owned()),
            _ => Ok(text.to_owned()),
        })
        .map(Self)
    }
}

/// Networks of clients, with the network of the service addresses that are near them; up to 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NearNetworks(pub(crate) Vec<Near>);

impl Value for NearNetworks {
    fn expected() -> String {
        "a table of up to 64 client networks and the networks of service addresses near them such as `{ \
         \"198.51.100.0/24\" = \"192.0.2.0/26\" }`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let rules = read_table(value, 64, |clients, addresses| {
            let parsed =
                (clients.parse::<Prefix>(), addresses.get_ref().as_str().unwrap_or_default().parse());
            match parsed {
                (Ok(clients), Ok(addresses)) => Ok(Near { clients, addresses }),
                (Err(error), _) | (_, Err(error)) => {
                    wrong(addresses, error.to_string(), format!("write {}", Self::expected()))
                }
            }
        })?;
        Ok(Self(rules.into_values().collect()))
    }
}

/// A table with any keys, at most `max`, each value read by `read`.
fn read_table<T>(
    value: &Spanned<DeValue<'_>>,
    max: usize,
    read: impl Fn(&str, &Spanned<DeValue<'_>>) -> Result<T, Vec<Finding>>,
) -> Result<BTreeMap<String, T>, Vec<Finding>> {
    let Some(table) = value.get_ref().as_table() else {
        let problem = format!("no {} belongs here", value.get_ref().type_str());
        return wrong(value, problem, "write a table such as `{ name = value }`");
    };
    if table.len() > max {
        return wrong(value, format!("{} entries are too many", table.len()), format!("write at most {max}"));
    }
    let (mut entries, mut findings) = (BTreeMap::new(), Vec::new());
    for (key, value) in table {
        match read(key.get_ref(), value) {
            Ok(entry) => drop(entries.insert(key.get_ref().clone().into_owned(), entry)),
            Err(more) => findings.extend(more),
        }
    }
    if findings.is_empty() { Ok(entries) } else { Err(findings) }
}
