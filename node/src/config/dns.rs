//! The DNS server's settings, from keys to a zone that holds together.

use super::dns_value::DNS_PORT;
use super::finding::Finding;
use super::keys::{DnsKeys, Keys};
use super::schema::Located;
use dpr_rrdns::{Name, NameError, Settings, Ttls, Zone, ZoneSettings, parse_name};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

/// What the DNS server serves, where and how.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    /// Sockets, for UDP and TCP.
    pub(crate) listen: Vec<SocketAddr>,
    /// The zone.
    pub(crate) zone: Arc<Zone>,
    /// Name servers with their addresses, for the parent zone.
    pub(crate) name_servers: Vec<(Name, Vec<std::net::IpAddr>)>,
    /// How queries are answered.
    pub(crate) answers: Settings,
    /// Whether addresses of nodes that died are still named.
    pub(crate) keep_dead: bool,
}

/// The settings that `keys` describe. `Some(None)`: there is no zone, so no DNS server.
pub(super) fn dns(keys: &Keys, server_id: &str, findings: &mut Vec<Finding>) -> Option<Option<Dns>> {
    let own = &keys.dns;
    let Some(zone) = &own.zone else {
        return match place_without_zone(own) {
            None => Some(None),
            Some(at) => {
                let instead = "add `zone = \"example.org\"` to [dns], or remove the table";
                findings.push(Finding::new(at, "without a zone there is no DNS server", instead));
                None
            }
        };
    };
    let settings = zone_settings(keys, zone, findings)?;
    let name_servers = settings.name_servers.clone();
    let built = match Zone::new(settings) {
        Ok(built) => built,
        Err(error) => {
            let at = own.records.as_ref().map_or(zone.at.clone(), |records| records.at.clone());
            findings.push(Finding::new(at, error.to_string(), "correct the names and records of [dns]"));
            return None;
        }
    };
    Some(Some(Dns {
        listen: listen(keys)?,
        zone: Arc::new(built),
        name_servers,
        answers: answers(own, server_id)?,
        keep_dead: own.keep_dead.as_ref()?.value,
    }))
}

/// Where a key is that makes no sense without a zone.
fn place_without_zone(keys: &DnsKeys) -> Option<Range<usize>> {
    let at = |place: &Range<usize>| place.clone();
    None.or(keys.listen.as_ref().map(|key| at(&key.at)))
        .or(keys.names.as_ref().map(|key| at(&key.at)))
        .or(keys.ns.as_ref().map(|key| at(&key.at)))
        .or(keys.contact.as_ref().map(|key| at(&key.at)))
}

fn zone_settings(
    keys: &Keys,
    zone: &Located<super::dns_value::DomainName>,
    findings: &mut Vec<Finding>,
) -> Option<ZoneSettings> {
    let (own, apex) = (&keys.dns, &zone.value.0);
    let mut settings = ZoneSettings::new(apex.clone());
    settings.ttls =
        Ttls { ordinary_s: own.ttl.as_ref()?.value.get(), hot_s: own.ttl_hot.as_ref()?.value.get() };
    if settings.ttls.hot_s > settings.ttls.ordinary_s {
        let at = own.ttl_hot.as_ref()?.at.clone();
        findings.push(Finding::new(
            at,
            "hot answers would live longer than others",
            "write less than `ttl-s`",
        ));
    }
    settings.records.clone_from(&own.records.as_ref()?.value.0);
    let mut read = |text: &str, at: &Range<usize>| {
        let name = parse_name(text, Some(apex));
        name.map_err(|NameError { text, reason }| {
            let problem = format!("{text:?} is no name: {reason}");
            findings.push(Finding::new(at.clone(), problem, "write a name within the zone, such as `www`"));
        })
        .ok()
    };
    if let Some(contact) = &own.contact {
        settings.contact = read(&contact.value, &contact.at)?;
    }
    match &own.names {
        Some(names) => {
            for (name, port) in &names.value.0 {
                settings.services.push((read(name, &names.at)?, *port));
            }
        }
        None => {
            let port = keys.services.first()?.0.port.as_ref()?.value.get();
            settings.services = vec![(apex.clone(), port), (read("www", &zone.at)?, port)];
        }
    }
    let Some(servers) = &own.ns else {
        let instead = "add `ns = { ns1 = [\"192.0.2.11\"], … }` with the nodes that serve DNS";
        findings.push(Finding::new(zone.at.clone(), "the zone has no name server", instead));
        return None;
    };
    for (name, addresses) in &servers.value.0 {
        settings.name_servers.push((read(name, &servers.at)?, addresses.clone()));
    }
    Some(settings)
}

fn listen(keys: &Keys) -> Option<Vec<SocketAddr>> {
    match &keys.dns.listen {
        Some(listen) => Some(listen.value.0.clone()),
        None => Some(vec![SocketAddr::new(keys.node.address.as_ref()?.value.0, DNS_PORT)]),
    }
}

fn answers(keys: &DnsKeys, server_id: &str) -> Option<Settings> {
    Some(Settings {
        addresses_max: keys.addresses.as_ref()?.value.get(),
        rate_max: keys.rate_limit.as_ref()?.value.get(),
        amplification_percent: keys.amplification.as_ref()?.value.get(),
        near: keys.near.as_ref()?.value.0.clone(),
        server_id: server_id.to_owned(),
        ..Settings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Defaults};
    use std::path::Path;

    fn parse(dns: &str) -> Result<Config, String> {
        let text = format!("[node]\naddress = \"192.0.2.11\"\n[[service]]\nport = 8080\n[dns]\n{dns}");
        let defaults = Defaults { host_name: "a".to_owned(), processors: 1 };
        Config::parse(Path::new("a.toml"), &text, &defaults).map_err(|error| error.to_string())
    }

    const ZONE: &str = "zone = \"example.org\"\nns = { ns1 = [\"192.0.2.11\"] }\n";

    #[test]
    fn a_zone_and_a_name_server_are_enough() {
        let dns = parse(ZONE).unwrap().dns.unwrap();

        assert_eq!(dns.listen, ["192.0.2.11:53".parse().unwrap()]);
        let services: Vec<_> =
            dns.zone.services().iter().map(|(name, port)| (name.to_string(), *port)).collect();
        assert_eq!(services, [("example.org".to_owned(), 8080), ("www.example.org".to_owned(), 8080)]);
        assert!(parse("").unwrap().dns.is_none());
    }

    #[test]
    fn what_makes_no_zone_is_told_with_its_reason() {
        let wrong = [
            ("zone = \"example.org\"\n", "has no name server"),
            ("listen = [\"192.0.2.11\"]\n", "without a zone"),
            (&format!("{ZONE}records = [\"www A 192.0.2.1\"]\n"), "is a service"),
            (&format!("{ZONE}records = [\"www\"]\n"), "record \"www\""),
            (&format!("{ZONE}names = {{ www = 0 }}\n"), "out of range"),
            (&format!("{ZONE}listen = [\"0.0.0.0\"]\n"), "no single address"),
            (&format!("{ZONE}ttl-s = 5\n"), "hot answers would live longer"),
            (&format!("{ZONE}near = {{ \"10.0.0.1/8\" = \"192.0.2.0/24\" }}\n"), "no network"),
            ("zone = \".\"\n", "the root"),
        ];
        for (text, reason) in wrong {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
