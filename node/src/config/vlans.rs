//! VLANs by their tags.

use super::finding::Finding;
use super::network::read_list;
use super::value::Value;
use dpr_rewrite::ethernet::{Tag, Tags, ethertype};
use toml::Spanned;
use toml::de::DeValue;

/// VLANs of one interface: each costs some rules of the packet filter.
const VLANS_MAX: usize = 64;
/// Identifiers that a VLAN can have (IEEE 802.1Q, table 9-2): 0 says that there is only a priority, 4095 is reserved.
const IDENTIFIERS: std::ops::RangeInclusive<u16> = 1..=4094;

/// A VLAN: the identifiers of its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vlan {
    outer: u16,
    inner: Option<u16>,
}

impl Vlan {
    /// The VLAN that `text` names; otherwise why it names none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let identifier = |text: &str| {
            let number = text.parse().ok().filter(|number| IDENTIFIERS.contains(number));
            number.ok_or_else(|| format!("{text:?} is no VLAN identifier (1 to 4094)"))
        };
        match text.split_once('.') {
            None => Ok(Self { outer: identifier(text)?, inner: None }),
            Some((outer, inner)) => Ok(Self { outer: identifier(outer)?, inner: Some(identifier(inner)?) }),
        }
    }

    /// True for the tags of a frame of this VLAN, whatever EtherTypes announce them.
    pub(crate) fn is_of(self, tags: &Tags) -> bool {
        match *tags.as_slice() {
            [only] => self == Self { outer: only.vlan(), inner: None },
            [outer, inner] => self == Self { outer: outer.vlan(), inner: Some(inner.vlan()) },
            _ => false,
        }
    }

    /// The tags that its frames ordinarily have: a customer's, or a provider's with a customer's behind it.
    pub(crate) fn tags(self) -> Tags {
        let customer = |control| Tag { ethertype: ethertype::VLAN, control };
        match self.inner {
            None => Tags::new(customer(self.outer), None),
            Some(inner) => {
                let provider = Tag { ethertype: ethertype::PROVIDER_VLAN, control: self.outer };
                Tags::new(provider, Some(customer(inner)))
            }
        }
    }
}

impl std::fmt::Display for Vlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.inner {
            None => write!(f, "{}", self.outer),
            Some(inner) => write!(f, "{}.{inner}", self.outer),
        }
    }
}

/// The VLANs of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vlans(pub(crate) Vec<Vlan>);

impl Value for Vlans {
    fn expected() -> String {
        format!("a list of up to {VLANS_MAX} VLANs such as `[\"100\", \"200.7\"]`")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        read_list(value, &Self::expected(), VLANS_MAX, Vlan::parse).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_has_one_identifier_or_two() {
        for text in ["1", "4094", "200.7"] {
            assert_eq!(Vlan::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "0", "4095", "7.", ".7", "1.2.3", "eth0.100", "-1"] {
            assert!(Vlan::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_frame_is_of_the_vlan_that_all_of_its_tags_name() {
        let (one, two) = (Vlan::parse("200").unwrap(), Vlan::parse("200.7").unwrap());
        assert!(one.is_of(&one.tags()) && two.is_of(&two.tags()));
        assert!(!one.is_of(&two.tags()) && !two.is_of(&one.tags()));
        assert!(!one.is_of(&Tags::default()));
        let with_priority = Tag { ethertype: ethertype::PROVIDER_VLAN, control: 0xe000 | 200 };
        assert!(one.is_of(&Tags::new(with_priority, None)));
    }
}
