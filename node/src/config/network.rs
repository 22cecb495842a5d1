//! Addresses, prefixes, ports and lists of them as kinds of values.

use super::finding::Finding;
use super::value::{Value, wrong, wrong_kind};
use dpr_director::DeliveryRange;
use dpr_model::{PORT_RANGES_MAX, PortGroup, PortRange};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use toml::Spanned;
use toml::de::DeValue;

/// An IP address that one host can have, and that means the same on all of its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostAddress(pub(crate) IpAddr);

impl HostAddress {
    /// Why `address` cannot be a host's, if it cannot.
    pub(crate) fn objection(address: IpAddr) -> Option<&'static str> {
        if address.is_unspecified() {
            return Some("the unspecified address");
        }
        if address.is_loopback() {
            return Some("a loopback address");
        }
        if address.is_multicast() {
            return Some("a multicast address");
        }
        match address {
            IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
            // 0.0.0.0/8 and 240.0.0.0/4: RFC 6890.
            IpAddr::V4(a) if a.octets()[0] == 0 || a.octets()[0] >= 240 => Some("a reserved address"),
            IpAddr::V6(a) if a.is_unicast_link_local() => Some("a link-local address"),
            IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("an IPv4 address in disguise"),
            _ => None,
        }
    }

    /// An address as [`Self::objection`] lets it pass, or what is wrong with the text.
    pub(super) fn parse(text: &str) -> Result<IpAddr, String> {
        let address = text.parse().map_err(|_| format!("{text:?} is no IP address"))?;
        match Self::objection(address) {
            Some(what) => Err(format!("{address} is {what}, no host can be reached by it")),
            None => Ok(address),
        }
    }
}

impl Value for HostAddress {
    fn expected() -> String {
        "an IP address such as `\"192.0.2.11\"` or `\"2001:db8::11\"`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        match Self::parse(text) {
            Ok(address) => Ok(Self(address)),
            Err(problem) => wrong(value, problem, format!("write {}", Self::expected())),
        }
    }
}

/// A prefix for delivery addresses of IPv6 if `V6`, of IPv4 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryPrefix<const V6: bool>(pub(crate) DeliveryRange);

impl<const V6: bool> DeliveryPrefix<V6> {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
        let is_possible = address.is_ipv6() == V6 && HostAddress::objection(address).is_none();
        is_possible.then(|| DeliveryRange::new(address, length).ok()).flatten().map(Self)
    }
}

impl<const V6: bool> fmt::Display for DeliveryPrefix<V6> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.network(), self.0.prefix_len())
    }
}

impl<const V6: bool> Value for DeliveryPrefix<V6> {
    fn expected() -> String {
        match V6 {
            false => "an IPv4 prefix of 8 to 30 bits such as `\"169.254.64.0/20\"`".to_owned(),
            true => "an IPv6 prefix of 8 to 126 bits such as `\"fd64:7072:4000::/64\"`".to_owned(),
        }
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        Self::parse(text).map_or_else(
            || {
                let problem = format!("{text:?} is no prefix that fits");
                wrong(value, problem, format!("write {}", Self::expected()))
            },
            Ok,
        )
    }
}

/// A range of ports, as two numbers with a hyphen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) PortRange);

impl Ports {
    /// Fewer ports than probes of the director's search for a free one would make most of them in vain.
    const COUNT_MIN: u16 = 16;

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let range = PortRange::new(first.parse().ok()?, last.parse().ok()?)?;
        (range.count() >= Self::COUNT_MIN).then_some(Self(range))
    }
}

impl Value for Ports {
    fn expected() -> String {
        format!("a range of at least {} ports such as `\"61000-65535\"`", Self::COUNT_MIN)
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        Self::parse(text).map_or_else(
            || {
                let problem = format!("{text:?} is no such range");
                wrong(value, problem, format!("write {}", Self::expected()))
            },
            Ok,
        )
    }
}

/// Ports and ranges of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FurtherPorts(pub(crate) PortGroup);

impl FurtherPorts {
    fn parse(text: &str) -> Result<PortRange, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.parse().ok().zip(last.parse().ok());
        let range = range.and_then(|(first, last)| PortRange::new(first, last));
        range.ok_or_else(|| format!("{text:?} is no port and no range of ports"))
    }
}

impl Value for FurtherPorts {
    fn expected() -> String {
        format!("a list of up to {PORT_RANGES_MAX} ports and ranges such as `[\"20\", \"50000-50099\"]`")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let ranges = read_list(value, &Self::expected(), PORT_RANGES_MAX, Self::parse)?;
        let mut group = PortGroup::NONE;
        ranges.into_iter().for_each(|range| {
            group.add(range);
        });
        Ok(Self(group))
    }
}

/// An address, perhaps with a port; an IPv6 address with a port is in brackets.
fn parse_socket(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return HostAddress::parse(text).map(|_| SocketAddr::new(address, port));
    }
    let socket: SocketAddr = text.parse().map_err(|_| format!("{text:?} is no IP address"))?;
    HostAddress::parse(&socket.ip().to_string())?;
    if socket.port() == 0 { Err("port 0 cannot be sent to".to_owned()) } else { Ok(socket) }
}

/// Where a server without `dpr` listens: address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerSocket(pub(crate) SocketAddr);

impl Value for ServerSocket {
    fn expected() -> String {
        "an IP address with a port such as `\"192.0.2.50:80\"` or `\"[2001:db8::50]:80\"`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        let instead = format!("write {}", Self::expected());
        match parse_socket(text, 0) {
            Ok(socket) if socket.port() == 0 => wrong(value, format!("{text:?} has no port"), instead),
            Ok(socket) => Ok(Self(socket)),
            Err(problem) => wrong(value, problem, instead),
        }
    }
}

/// At most `max` entries, none of them twice.
pub(super) fn read_list<T: PartialEq>(
    value: &Spanned<DeValue<'_>>,
    expected: &str,
    max: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Vec<Finding>> {
    let instead = format!("write {expected}");
    let Some(items) = value.get_ref().as_array() else {
        return wrong(value, format!("no {} belongs here", value.get_ref().type_str()), instead);
    };
    if items.len() > max {
        return wrong(value, format!("{} entries are too many", items.len()), format!("write at most {max}"));
    }
    let (mut list, mut findings) = (Vec::new(), Vec::new());
    for item in items {
        let text = item.get_ref().as_str().unwrap_or_default();
        match read(text) {
            Ok(entry) if list.contains(&entry) => {
                findings.push(Finding::new(
                    item.span(),
                    format!("{text:?} is here already"),
                    "write it once",
                ));
            }
            Ok(entry) => list.push(entry),
            Err(problem) => findings.push(Finding::new(item.span(), problem, instead.clone())),
        }
    }
    if findings.is_empty() { Ok(list) } else { Err(findings) }
}

/// Multicast groups with their ports; up to 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups(pub(crate) Vec<SocketAddr>);

impl Value for Groups {
    fn expected() -> String {
        "a list of up to 8 multicast addresses with ports such as `[\"239.255.77.77:7777\"]` or `[\"[ff15::7777]:7777\"]`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), 8, |text| match text.parse::<SocketAddr>() {
            Ok(group) if !group.ip().is_multicast() => Err(format!("{} is no multicast address", group.ip())),
            Ok(group) if group.port() == 0 => Err("port 0 cannot be sent to".to_owned()),
            Ok(group) => Ok(group),
            Err(_) => Err(format!("{text:?} is no IP address with a port")),
        })
        .map(Self)
    }
}

/// Nodes that are sent to by unicast; up to 4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peers(pub(crate) Vec<SocketAddr>);

impl Peers {
    /// Port of a peer that was written without one.
    pub(crate) const PORT: u16 = 7777;
}

impl Value for Peers {
    fn expected() -> String {
        format!(
            "a list of up to 4096 addresses such as `[\"192.0.2.12\", \"192.0.2.13:7777\"]` (port {} unless told)",
            Self::PORT
        )
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), 4096, |text| parse_socket(text, Self::PORT)).map(Self)
    }
}
