//! What the zone holds whatever the load: name servers, records of the operator, and which names are services.

use crate::key::{Key, Name, ancestry};
use crate::records::{self, Data};
use domain::base::iana::Rtype;
use domain::base::{Serial, Ttl};
use domain::rdata::{A, Aaaa, Ns, Soa};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// SOA REFRESH, RETRY and EXPIRE, seconds: for secondary servers, of which there are none (RFC 1912 section 2.2).
const SOA_TIMES_S: [u32; 3] = [1200, 180, 1_209_600];

/// TTL of name servers and their addresses, seconds: they do not change with the load.
const NAME_SERVER_TTL_S: u32 = 3600;

/// CNAMEs that are followed from one name, in the zone and for a query.
pub(crate) const CNAMES_MAX: usize = 8;

/// How long answers may be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// Ordinary answers with service addresses, and answers that a name or type does not exist; seconds.
    pub ordinary_s: u32,
    /// Answers that name a hot node or go to a hot network, seconds.
    pub hot_s: u32,
}

impl Default for Ttls {
    fn default() -> Self {
        Self { ordinary_s: 60, hot_s: 10 }
    }
}

/// What a zone is made of.
#[derive(Clone, Debug)]
pub struct ZoneSettings {
    /// Name of the zone.
    pub apex: Name,
    /// Mailbox of who is responsible, as a domain name (RFC 1035 section 3.3.13).
    pub contact: Name,
    /// SOA SERIAL.
    pub serial: u32,
    /// Name servers, at least one; those within the zone with their addresses, others without.
    pub name_servers: Vec<(Name, Vec<IpAddr>)>,
    /// Names of services, with the port whose addresses they give.
    pub services: Vec<(Name, u16)>,
    /// Further records, each a line of a master file (RFC 1035 section 5).
    pub records: Vec<String>,
    /// How long answers may be cached.
    pub ttls: Ttls,
}

impl ZoneSettings {
    /// A zone with nothing in it; its contact is `hostmaster`, as RFC 2142 section 7 wants it.
    pub fn new(apex: Name) -> Self {
        let contact = crate::key::parse_name("hostmaster", Some(&apex)).unwrap_or_else(|_| apex.clone());
        Self {
            apex,
            contact,
            serial: 1,
            name_servers: Vec::new(),
            services: Vec::new(),
            records: Vec::new(),
            ttls: Ttls::default(),
        }
    }
}

/// Why settings make no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Nobody could find the zone.
    #[error("a zone needs at least one name server")]
    NoNameServer,
    /// A name server in the zone has no address, or one outside has.
    #[error("name server {0}: write its addresses if it is within the zone, and none if it is not")]
    NameServerAddresses(Name),
    /// A line is no record that could be served.
    #[error("record {line:?}: {reason}")]
    Record {
        /// The line.
        line: String,
        /// What is wrong.
        reason: String,
    },
    /// A name is not within the zone.
    #[error("{0} is not within the zone")]
    Outside(Name),
    /// A name is an alias and something else as well (RFC 1034 section 3.6.2), or two aliases.
    #[error("{0} has a CNAME and something else")]
    NotOnlyAlias(Name),
    /// A name has fixed addresses and a service's.
    #[error("{0} is a service, whose addresses follow the cluster, and has fixed addresses as well")]
    FixedService(Name),
    /// A name is two services.
    #[error("{0} is named twice as a service")]
    RepeatedService(Name),
    /// Aliases lead in a circle or too far.
    #[error("the aliases that begin at {0} do not end")]
    AliasChain(Name),
}

/// All records of one name and type.
#[derive(Clone, Debug)]
pub(crate) struct RecordSet {
    pub(crate) rtype: Rtype,
    pub(crate) ttl: Ttl,
    pub(crate) data: Vec<Data>,
}

/// A name that exists; without content it has names below it (RFC 4592 section 2.2.2).
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    sets: Vec<RecordSet>,
    /// Port of the service whose addresses it has.
    pub(crate) service: Option<u16>,
}

impl Entry {
    pub(crate) fn set(&self, rtype: Rtype) -> Option<&RecordSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }

    /// Where it leads, if it is an alias.
    pub(crate) fn alias(&self) -> Option<(&RecordSet, &Name)> {
        let set = self.set(Rtype::CNAME)?;
        match set.data.first() {
            Some(Data::Cname(cname)) => Some((set, cname.cname())),
            _ => None,
        }
    }

    fn add(&mut self, rtype: Rtype, ttl: Ttl, data: Data) {
        match self.sets.iter_mut().find(|set| set.rtype == rtype) {
            // All records of a set have one TTL, and a record is there once (RFC 2181 section 5).
            Some(set) => {
                set.ttl = set.ttl.min(ttl);
                if !set.data.contains(&data) {
                    set.data.push(data);
                }
            }
            None => self.sets.push(RecordSet { rtype, ttl, data: vec![data] }),
        }
    }

    fn has_addresses(&self) -> bool {
        self.set(Rtype::A).is_some() || self.set(Rtype::AAAA).is_some()
    }
}

/// What a name is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// In another zone.
    Outside,
    /// Nothing.
    Absent,
    /// There, itself or by a wildcard.
    Present(&'a Entry),
}

/// A zone whose records do not contradict each other.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name,
    apex_key: Vec<u8>,
    soa: Data,
    ttls: Ttls,
    entries: BTreeMap<Vec<u8>, Entry>,
    services: Vec<(Name, u16)>,
}

impl Zone {
    /// Puts a zone together.
    ///
    /// # Errors
    /// [`ZoneError`]: what contradicts itself or cannot be served.
    pub fn new(settings: ZoneSettings) -> Result<Self, ZoneError> {
        let Some((primary, _)) = settings.name_servers.first() else { return Err(ZoneError::NoNameServer) };
        let [refresh, retry, expire] = SOA_TIMES_S.map(Ttl::from_secs);
        let soa = Data::Soa(Soa::new(
            primary.clone(),
            settings.contact.clone(),
            Serial::from(settings.serial),
            refresh,
            retry,
            expire,
            Ttl::from_secs(settings.ttls.ordinary_s),
        ));
        let mut zone = Self {
            apex_key: Key::of(&settings.apex).as_slice().to_vec(),
            apex: settings.apex,
            soa: soa.clone(),
            ttls: settings.ttls,
            entries: BTreeMap::new(),
            services: settings.services,
        };
        let apex = zone.apex.clone();
        zone.entry(&apex)?.add(Rtype::SOA, Ttl::from_secs(settings.ttls.ordinary_s), soa);
        zone.add_name_servers(&settings.name_servers)?;
        for line in &settings.records {
            let record = records::read(line, &apex)?;
            zone.entry(&record.owner)?.add(record.rtype, record.ttl, record.data);
        }
        zone.add_services()?;
        zone.check_aliases()?;
        Ok(zone)
    }

    /// Its name.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Names of services, with the port whose addresses they give.
    pub fn services(&self) -> &[(Name, u16)] {
        &self.services
    }

    pub(crate) fn ttls(&self) -> Ttls {
        self.ttls
    }

    /// The SOA record, which says how long a negative answer may be cached (RFC 2308 section 3).
    pub(crate) fn soa(&self) -> (&Name, Ttl, &Data) {
        (&self.apex, Ttl::from_secs(self.ttls.ordinary_s), &self.soa)
    }

    /// What the name of `key` is; wildcards stand in for names that do not exist (RFC 4592 section 3.3).
    pub(crate) fn find(&self, key: &[u8]) -> Found<'_> {
        if let Some(entry) = self.entries.get(key) {
            return Found::Present(entry);
        }
        if !self.contains(key) {
            return Found::Outside;
        }
        let encloser = ancestry(key).skip(1).find(|name| self.entries.contains_key(*name));
        let wildcard = encloser.map(|encloser| [b"\x01*", encloser].concat());
        match wildcard.and_then(|name| self.entries.get(&name)) {
            Some(entry) => Found::Present(entry),
            None => Found::Absent,
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        ancestry(key).any(|name| name == self.apex_key)
    }

    /// The entry of a name, made with all names between it and the apex if it is not there yet.
    fn entry(&mut self, name: &Name) -> Result<&mut Entry, ZoneError> {
        let key = Key::of(name);
        if !self.contains(key.as_slice()) {
            return Err(ZoneError::Outside(name.clone()));
        }
        let above = ancestry(key.as_slice()).skip(1).take_while(|name| name.len() >= self.apex_key.len());
        for name in above {
            self.entries.entry(name.to_vec()).or_default();
        }
        Ok(self.entries.entry(key.as_slice().to_vec()).or_default())
    }

    fn add_name_servers(&mut self, name_servers: &[(Name, Vec<IpAddr>)]) -> Result<(), ZoneError> {
        let ttl = Ttl::from_secs(NAME_SERVER_TTL_S);
        let apex = self.apex.clone();
        for (name, addresses) in name_servers {
            if name.ends_with(&apex) == addresses.is_empty() {
                return Err(ZoneError::NameServerAddresses(name.clone()));
            }
            self.entry(&apex)?.add(Rtype::NS, ttl, Data::Ns(Ns::new(name.clone())));
            for address in addresses {
                let entry = self.entry(name)?;
                match address {
                    IpAddr::V4(address) => entry.add(Rtype::A, ttl, Data::A(A::new(*address))),
                    IpAddr::V6(address) => entry.add(Rtype::AAAA, ttl, Data::Aaaa(Aaaa::new(*address))),
                }
            }
        }
        Ok(())
    }

    fn add_services(&mut self) -> Result<(), ZoneError> {
        for (name, port) in self.services.clone() {
            let entry = self.entry(&name)?;
            if entry.has_addresses() {
                return Err(ZoneError::FixedService(name));
            }
            if entry.service.replace(port).is_some() {
                return Err(ZoneError::RepeatedService(name));
            }
        }
        Ok(())
    }

    fn check_aliases(&self) -> Result<(), ZoneError> {
        for (key, entry) in &self.entries {
            let Some((set, _)) = entry.alias() else { continue };
            let name = Name::from_octets(key.clone().into()).unwrap_or_else(|_| self.apex.clone());
            if entry.sets.len() > 1 || set.data.len() > 1 || entry.service.is_some() {
                return Err(ZoneError::NotOnlyAlias(name));
            }
            let mut at = entry;
            for _ in 0..CNAMES_MAX {
                let Some((_, target)) = at.alias() else { break };
                let Found::Present(next) = self.find(Key::of(target).as_slice()) else { break };
                at = next;
            }
            if at
                .alias()
                .is_some_and(|(_, target)| matches!(self.find(Key::of(target).as_slice()), Found::Present(_)))
            {
                return Err(ZoneError::AliasChain(name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::parse_name;

    fn apex() -> Name {
        parse_name("example.org", None).unwrap()
    }

    fn name(text: &str) -> Name {
        parse_name(text, Some(&apex())).unwrap()
    }

    fn zone(records: &[&str]) -> Result<Zone, ZoneError> {
        let mut settings = ZoneSettings::new(apex());
        settings.name_servers.push((name("ns1"), vec!["192.0.2.11".parse().unwrap()]));
        settings.services.push((name("www"), 80));
        settings.records = records.iter().map(|line| (*line).to_owned()).collect();
        Zone::new(settings)
    }

    #[test]
    fn names_that_contradict_themselves_are_refused() {
        assert_eq!(zone(&["www A 192.0.2.1"]).unwrap_err(), ZoneError::FixedService(name("www")));
        assert_eq!(zone(&["www CNAME b"]).unwrap_err(), ZoneError::NotOnlyAlias(name("www")));
        assert_eq!(zone(&["a CNAME b", "a CNAME c"]).unwrap_err(), ZoneError::NotOnlyAlias(name("a")));
        assert_eq!(zone(&["a CNAME b", "a TXT x"]).unwrap_err(), ZoneError::NotOnlyAlias(name("a")));
        assert_eq!(zone(&["a CNAME b", "b CNAME a"]).unwrap_err(), ZoneError::AliasChain(name("a")));
        assert!(matches!(zone(&["a.example.net. A 192.0.2.1"]), Err(ZoneError::Outside(_))));
        assert!(zone(&["a CNAME www", "b CNAME a", "c CNAME x.example.net.", "d CNAME nothing"]).is_ok());
    }

    #[test]
    fn name_servers_have_addresses_if_and_only_if_they_are_within() {
        let with = |server: &str, addresses: &[&str]| {
            let mut settings = ZoneSettings::new(apex());
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            settings.name_servers.push((name(server), addresses));
            Zone::new(settings).map(drop)
        };

        assert_eq!(with("ns1", &[]), Err(ZoneError::NameServerAddresses(name("ns1"))));
        assert_eq!(
            with("ns.example.net.", &["192.0.2.1"]),
            Err(ZoneError::NameServerAddresses(name("ns.example.net.")))
        );
        assert_eq!(with("ns.example.net.", &[]), Ok(()));
        assert_eq!(Zone::new(ZoneSettings::new(apex())).unwrap_err(), ZoneError::NoNameServer);
    }
}
