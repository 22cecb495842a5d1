//! Records that the operator wrote: lines of a master file (RFC 1035 section 5).

use crate::key::Name;
use crate::zone::ZoneError;
use bytes::Bytes;
use domain::base::iana::{Class, Rtype};
use domain::base::name::FlattenInto as _;
use domain::base::{RecordData as _, Ttl};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

/// What a record says.
pub(crate) type Data = ZoneRecordData<Bytes, Name>;

/// One record.
#[derive(Clone, Debug)]
pub(crate) struct StaticRecord {
    pub(crate) owner: Name,
    pub(crate) rtype: Rtype,
    pub(crate) ttl: Ttl,
    pub(crate) data: Data,
}

/// Types that a line must not have, and why.
const REFUSED: [(&[Rtype], &str); 4] = [
    (&[Rtype::SOA], "the zone's SOA follows from its settings"),
    (&[Rtype::NS, Rtype::DS], "this server delegates nothing; the zone's own name servers are settings"),
    (&[Rtype::DNAME], "DNAME is not served"),
    (
        &[Rtype::RRSIG, Rtype::DNSKEY, Rtype::NSEC, Rtype::NSEC3, Rtype::NSEC3PARAM],
        "the zone is not signed: answers change with every query",
    ),
];

/// Reads one line; names are relative to `origin` unless they end with a dot.
pub(crate) fn read(line: &str, origin: &Name) -> Result<StaticRecord, ZoneError> {
    let wrong = |reason: String| ZoneError::Record { line: line.to_owned(), reason };
    let mut file = Zonefile::from(line);
    file.extend_from_slice(b"\n");
    file.set_origin(origin.clone());
    file.set_default_class(Class::IN);
    let entry = file.next_entry().map_err(|error| wrong(error.to_string()))?;
    let Some(Entry::Record(scanned)) = entry else {
        return Err(wrong("it is no record".to_owned()));
    };
    if !matches!(file.next_entry(), Ok(None)) {
        return Err(wrong("it is more than one record".to_owned()));
    }
    if scanned.class() != Class::IN {
        return Err(wrong(format!("class {} is not served", scanned.class())));
    }
    let ttl = scanned.ttl();
    let (owner, data) = scanned.into_owner_and_data();
    let rtype = data.rtype();
    if let Some((_, reason)) = REFUSED.iter().find(|(types, _)| types.contains(&rtype)) {
        return Err(wrong((*reason).to_owned()));
    }
    Ok(StaticRecord { owner: owner.flatten_into(), rtype, ttl, data: data.flatten_into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::parse_name;

    fn record(line: &str) -> Result<StaticRecord, ZoneError> {
        read(line, &parse_name("example.org", None).unwrap())
    }

    #[test]
    fn a_line_has_a_name_and_a_type_and_may_have_a_ttl() {
        let mail = record("@ 300 IN MX 10 mail").unwrap();
        let text = record("_dmarc TXT \"v=DMARC1; p=none\"").unwrap();

        assert_eq!((mail.owner.to_string(), mail.ttl.as_secs()), ("example.org".to_owned(), 300));
        assert_eq!(mail.data.to_string(), "10 mail.example.org.");
        assert_eq!((text.owner.to_string(), text.ttl.as_secs()), ("_dmarc.example.org".to_owned(), 3600));
    }

    #[test]
    fn what_is_no_single_record_is_refused_with_a_reason() {
        let lines = [
            "",
            "www",
            "www A",
            "www A 192.0.2.300",
            "www A 192.0.2.1\nftp A 192.0.2.2",
            "$INCLUDE /etc/passwd",
            "www CH A 192.0.2.1",
            "sub NS ns.example.net.",
            "@ SOA a b 1 2 3 4 5",
        ];
        for line in lines {
            let error = record(line).unwrap_err().to_string();
            assert!(error.len() > line.len() + 10, "{error}");
        }
    }
}
