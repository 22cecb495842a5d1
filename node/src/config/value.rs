//! Kinds of values that a configuration file may hold: each says what it accepts and builds nothing else.

use super::finding::Finding;
use super::suggestion::nearest;
use dpr_model::Metric;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// A kind of value: what may be written, and how it is read.
pub(crate) trait Value: Sized {
    /// What may be written, for people.
    fn expected() -> String;

    /// The value, or everything that is wrong with it.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>>;
}

pub(super) fn wrong<T>(
    value: &Spanned<DeValue<'_>>,
    problem: impl Into<String>,
    instead: impl Into<String>,
) -> Result<T, Vec<Finding>> {
    Err(vec![Finding::new(value.span(), problem, instead)])
}

pub(super) fn wrong_kind<T: Value>(value: &Spanned<DeValue<'_>>) -> Result<T, Vec<Finding>> {
    wrong(
        value,
        format!("no {} belongs here", value.get_ref().type_str()),
        format!("write {}", T::expected()),
    )
}

/// An integer between bounds that it carries in its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number, as a type that holds every number up to `MAX`.
    pub(crate) fn get<T: TryFrom<u64>>(self) -> T {
        T::try_from(self.0).ok().expect("the bounds of a key fit the type that it is used as")
    }
}

impl<const MIN: u64, const MAX: u64> Value for Bounded<MIN, MAX> {
    fn expected() -> String {
        format!("an integer from {MIN} to {MAX}")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(integer) = value.get_ref().as_integer() else { return wrong_kind(value) };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => wrong(value, format!("{integer} is out of range"), format!("write {}", Self::expected())),
        }
    }
}

impl Value for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        value.get_ref().as_bool().map_or_else(|| wrong_kind(value), Ok)
    }
}

/// A word of 1 to `MAX` bytes, without spaces, slashes and control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<const MAX: usize>(String);

/// A name for people; a load report carries 63 bytes.
pub(crate) type Name = Word<63>;

/// A network interface's name: `IFNAMSIZ` of linux/if.h without its final zero.
pub(crate) type InterfaceName = Word<15>;

impl<const MAX: usize> Word<MAX> {
    /// The word, if `text` is one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX;
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        (fits && !text.contains(forbidden)).then(|| Self(text.to_owned()))
    }

    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Value for Word<MAX> {
    fn expected() -> String {
        format!("a string of 1 to {MAX} bytes without spaces and slashes")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        Self::new(text).map_or_else(
            || wrong(value, format!("{text:?} does not fit"), format!("write {}", Self::expected())),
            Ok,
        )
    }
}

/// Directives of the log filter, as `tracing_subscriber::EnvFilter` reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// Its text, which the filter is known to accept.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogFilter {
    fn expected() -> String {
        "`\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"`, `\"trace\"`, or filter directives such as \
         `\"info,dpr::dataplane=debug\"`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(
                value,
                format!("{text:?} is no log filter: {error}"),
                format!("write {}", Self::expected()),
            ),
        }
    }
}

impl Value for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        value.get_ref().as_str().map_or_else(|| wrong_kind(value), |text| Ok(text.to_owned()))
    }
}

impl Value for PathBuf {
    fn expected() -> String {
        "a path".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        if text.is_empty() || text.contains('\0') {
            return wrong(value, format!("{text:?} is no path"), "write a path such as `\"/srv/www\"`");
        }
        Ok(Self::from(text))
    }
}

/// An IPv4 address that one host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostAddress(pub(crate) Ipv4Addr);

impl HostAddress {
    /// Why `address` cannot be a host's, if it cannot.
    pub(crate) fn objection(address: Ipv4Addr) -> Option<&'static str> {
        match address {
            a if a.is_unspecified() => Some("the unspecified address"),
            a if a.is_loopback() => Some("a loopback address"),
            a if a.is_multicast() => Some("a multicast address"),
            a if a.is_broadcast() => Some("the broadcast address"),
            // 0.0.0.0/8 and 240.0.0.0/4: RFC 6890.
            a if a.octets()[0] == 0 || a.octets()[0] >= 240 => Some("a reserved address"),
            _ => None,
        }
    }
}

impl Value for HostAddress {
    fn expected() -> String {
        "an IPv4 address such as `\"192.0.2.11\"`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        let instead = format!("write {}", Self::expected());
        match text.parse() {
            Ok(IpAddr::V6(_)) => wrong(value, "IPv6 is not supported by this version yet", instead),
            Err(_) => wrong(value, format!("{text:?} is no IP address"), instead),
            Ok(IpAddr::V4(address)) => match Self::objection(address) {
                Some(what) => wrong(value, format!("{address} is {what}, no host can have it"), instead),
                None => Ok(Self(address)),
            },
        }
    }
}

/// An IPv4 prefix whose host bits are zero, 8 to 30 bits long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ipv4Prefix {
    /// First address.
    pub(crate) address: Ipv4Addr,
    /// Bits.
    pub(crate) length: u8,
}

impl Ipv4Prefix {
    /// Whether `address` is within.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.address)) >> (32 - u32::from(self.length)) == 0
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (address, length): (Ipv4Addr, u8) = (address.parse().ok()?, length.parse().ok()?);
        let host_bits = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let fits = (8..=30).contains(&length) && u32::from(address) & host_bits == 0;
        (fits && HostAddress::objection(address).is_none()).then_some(Self { address, length })
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Value for Ipv4Prefix {
    fn expected() -> String {
        "an IPv4 prefix of 8 to 30 bits such as `\"169.254.64.0/20\"`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        Self::parse(text).map_or_else(
            || {
                wrong(
                    value,
                    format!("{text:?} is no prefix that fits"),
                    format!("write {}", Self::expected()),
                )
            },
            Ok,
        )
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
pub(crate) struct Groups(pub(crate) Vec<SocketAddrV4>);

impl Value for Groups {
    fn expected() -> String {
        "a list of up to 8 multicast addresses with ports such as `[\"239.255.77.77:7777\"]`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), 8, |text| match text.parse::<SocketAddrV4>() {
            Ok(group) if !group.ip().is_multicast() => Err(format!("{} is no multicast address", group.ip())),
            Ok(group) if group.port() == 0 => Err("port 0 cannot be sent to".to_owned()),
            Ok(group) => Ok(group),
            Err(_) => Err(format!("{text:?} is no IPv4 address with a port")),
        })
        .map(Self)
    }
}

/// Nodes that are sent to by unicast; up to 4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peers(pub(crate) Vec<SocketAddrV4>);

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
        read_list(value, &Self::expected(), 4096, |text| {
            let bare = text.parse::<Ipv4Addr>().map(|address| SocketAddrV4::new(address, Self::PORT));
            let Ok(peer) = bare.or_else(|_| text.parse::<SocketAddrV4>()) else {
                return Err(format!("{text:?} is no IPv4 address"));
            };
            match HostAddress::objection(*peer.ip()) {
                Some(what) => Err(format!("{} is {what}, no peer can have it", peer.ip())),
                None if peer.port() == 0 => Err("port 0 cannot be sent to".to_owned()),
                None => Ok(peer),
            }
        })
        .map(Self)
    }
}

/// How much each metric counts in the load index; at least one of them counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metrics(pub(crate) BTreeMap<Metric, u16>);

impl Value for Metrics {
    fn expected() -> String {
        "a table of metrics with weights from 0 to 1000 such as `{ cpu = 2, connections = 1 }`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(table) = value.get_ref().as_table() else { return wrong_kind(value) };
        let (mut weights, mut findings) = (BTreeMap::new(), Vec::new());
        for (key, weight) in table {
            let word = key.get_ref().as_ref();
            match Metric::ALL.into_iter().find(|metric| metric.label() == word) {
                None => findings.push(unknown_metric(key.span(), word)),
                Some(metric) => match Bounded::<0, 1000>::read(weight) {
                    Ok(weight) => drop(weights.insert(metric, weight.get())),
                    Err(more) => findings.extend(more),
                },
            }
        }
        if findings.is_empty() && weights.values().all(|&weight| weight == 0) {
            return wrong(
                value,
                "no metric counts, so every node would look idle",
                "give a metric a weight above 0",
            );
        }
        if findings.is_empty() { Ok(Self(weights)) } else { Err(findings) }
    }
}

fn unknown_metric(at: std::ops::Range<usize>, word: &str) -> Finding {
    let labels = Metric::ALL.map(Metric::label);
    let instead = nearest(word, labels)
        .map_or_else(|| format!("the metrics are {}", labels.join(", ")), |label| format!("write `{label}`"));
    Finding::new(at, format!("there is no metric `{word}`"), instead)
}
