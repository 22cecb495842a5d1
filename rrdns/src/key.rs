//! Domain names, and what they are looked up by.

use bytes::Bytes;
use domain::base::name::{FromStrError, RelativeName, ToName};
use domain::dep::octseq::array::Array;

/// An absolute domain name.
pub type Name = domain::base::Name<Bytes>;

/// Why a text is no domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no domain name: {reason}")]
pub struct NameError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a name: relative to `origin` unless it ends with a dot, and `@` is the origin itself; without an origin every
/// name is absolute.
///
/// # Errors
/// [`NameError`]: labels are empty or longer than 63 bytes, or the whole is longer than 255 (RFC 1035 section 2.3.4).
pub fn parse_name(text: &str, origin: Option<&Name>) -> Result<Name, NameError> {
    let wrong =
        |reason: &dyn std::fmt::Display| NameError { text: text.to_owned(), reason: reason.to_string() };
    match origin {
        Some(origin) if text == "@" => Ok(origin.clone()),
        Some(origin) if !text.ends_with('.') => {
            let relative: RelativeName<Bytes> = text.parse().map_err(|error| wrong(&error))?;
            let whole = relative.chain(origin).map_err(|error| wrong(&error))?;
            Ok(whole.to_name())
        }
        _ => text.parse().map_err(|error: FromStrError| wrong(&error)),
    }
}

/// A name as it is looked up: its labels on the wire, uncompressed, in lower case (RFC 4343).
#[derive(Clone, Debug)]
pub(crate) struct Key(Array<255>);

impl Key {
    pub(crate) fn of(name: &impl ToName) -> Self {
        let mut bytes = Array::new();
        name.compose_canonical(&mut bytes).expect("a name has at most 255 bytes, RFC 1035 section 2.3.4");
        Self(bytes)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// The name without its first label; nothing above the root.
pub(crate) fn parent(key: &[u8]) -> Option<&[u8]> {
    let label_length = usize::from(*key.first()?);
    if label_length == 0 { None } else { key.get(1 + label_length..) }
}

/// `key` and the names above it, up to the root.
pub(crate) fn ancestry(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(key), |key| parent(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_origin_unless_they_end_with_a_dot() {
        let origin = parse_name("example.org", None).unwrap();

        let name = |text| parse_name(text, Some(&origin)).unwrap().to_string();

        assert_eq!(name("www"), "www.example.org");
        assert_eq!(name("@"), "example.org");
        assert_eq!(name("mail.example.net."), "mail.example.net");
        assert!(parse_name("a..b", Some(&origin)).is_err());
        assert!(parse_name(&"a".repeat(64), None).is_err());
    }

    #[test]
    fn a_key_ignores_case_and_leads_up_to_the_root() {
        let key = Key::of(&parse_name("WWW.Example.org", None).unwrap());

        assert_eq!(key.as_slice(), b"\x03www\x07example\x03org\0");
        let names: Vec<&[u8]> = ancestry(key.as_slice()).collect();
        assert_eq!(
            names,
            [&b"\x03www\x07example\x03org\0"[..], b"\x07example\x03org\0", b"\x03org\0", b"\0"]
        );
    }
}
