//! Keys and authentication tags: who may speak in this cluster.
//!
//! A tag is SipHash-2-4 with 128 bits (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, which proposes it
//! as a MAC; the longer result is in their reference implementation) over everything before it; why this one, is in
//! `docs/decisions/0019-authenticator.md`. Up to two keys live at once, so that keys rotate without downtime: give every
//! node the new key as its second, then as its first, then take the old one away. Each key of tags is derived from its
//! own secret by BLAKE3, and the message type is among what the tag covers: what one key or type signed is nothing to
//! another. This module does not read files: it is given their text.

use crate::error::DatagramError;
use constant_time_eq::constant_time_eq_16;
use siphasher::sip128::SipHasher24;
use std::fmt;

/// Bytes of an authentication tag; a forger's chance is 2^-128 per try.
pub(crate) const TAG_LENGTH: usize = 16;

/// Contexts of BLAKE3 `derive_key`: the same secret used elsewhere yields unrelated keys there.
const TAG_CONTEXT: &str = "dpr load-gossip v2 datagram authentication tag";
const ID_CONTEXT: &str = "dpr load-gossip v2 key id";

/// Public name of a key, so that a receiver knows which one to try; 0 stands for "no key".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 4]);

impl KeyId {
    /// The id of datagrams that are not authenticated.
    pub(crate) const NONE: Self = Self([0; 4]);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A secret of 32 bytes that all nodes of a cluster share.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    /// Keyed, and nothing hashed yet.
    tag_hasher: SipHasher24,
}

impl Key {
    /// A key out of 32 random bytes, of which only what is derived from them is kept.
    pub fn new(secret: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = blake3::derive_key(ID_CONTEXT, secret);
        let id = KeyId([a, b, c, d]);
        // Zero means "no key" on the wire.
        let id = if id == KeyId::NONE { KeyId([0, 0, 0, 1]) } else { id };
        let derived = blake3::derive_key(TAG_CONTEXT, secret);
        let tag_key = derived.first_chunk().expect("32 bytes begin with 16");
        Self { id, tag_hasher: SipHasher24::new_with_key(tag_key) }
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn tag(&self, message: &[u8]) -> [u8; TAG_LENGTH] {
        self.tag_hasher.hash(message).as_bytes()
    }
}

impl fmt::Debug for Key {
    /// Shows the id and never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The live keys: none, one, or two while keys rotate. The first signs, all verify.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Keys that may be live at once.
    pub const KEYS_MAX: usize = 2;

    /// No keys: datagrams are neither signed nor verified, and signed ones are refused.
    pub fn unauthenticated() -> Self {
        Self::default()
    }

    /// One key, or two while they rotate: `signing` signs, both verify.
    pub fn new(signing: Key, other: Option<Key>) -> Self {
        Self { keys: std::iter::once(signing).chain(other).collect() }
    }

    /// Reads the text of a key file: one key of 64 hexadecimal digits per line, `#` starts a comment.
    ///
    /// A file without a key is an error, as it would quietly turn authentication off. Errors name the line
    /// and never what is written there.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut secrets: Vec<[u8; 32]> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let content = line.split_once('#').map_or(line, |(before, _)| before).trim();
            if content.is_empty() {
                continue;
            }
            let line = index + 1;
            let secret = parse_secret(content, line)?;
            if secrets.contains(&secret) {
                return Err(KeyFileError::RepeatedKey { line });
            }
            if secrets.len() == Self::KEYS_MAX {
                return Err(KeyFileError::TooManyKeys { line });
            }
            secrets.push(secret);
        }
        if secrets.is_empty() {
            return Err(KeyFileError::NoKey);
        }
        Ok(Self { keys: secrets.iter().map(Key::new).collect() })
    }

    /// Whether datagrams are authenticated at all.
    pub fn is_authenticating(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Ids of the live keys, the signing one first.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(Key::id)
    }

    /// Id of the key that signs.
    pub(crate) fn signing_id(&self) -> KeyId {
        self.keys.first().map_or(KeyId::NONE, Key::id)
    }

    /// The tag of `message` by the signing key; zeros without one.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; TAG_LENGTH] {
        self.keys.first().map_or([0; TAG_LENGTH], |key| key.tag(message))
    }

    /// Checks the tag of `message` with the key that it names.
    pub(crate) fn verify(
        &self,
        id: KeyId,
        message: &[u8],
        tag: &[u8; TAG_LENGTH],
    ) -> Result<(), DatagramError> {
        if !self.is_authenticating() {
            return match id {
                KeyId::NONE if *tag == [0; TAG_LENGTH] => Ok(()),
                KeyId::NONE => Err(DatagramError::BadTag),
                _ => Err(DatagramError::UnknownKey(id)),
            };
        }
        if id == KeyId::NONE {
            return Err(DatagramError::Unauthenticated);
        }
        let mut candidates = self.keys.iter().filter(|key| key.id == id).peekable();
        if candidates.peek().is_none() {
            return Err(DatagramError::UnknownKey(id));
        }
        if candidates.any(|key| constant_time_eq_16(&key.tag(message), tag)) {
            Ok(())
        } else {
            Err(DatagramError::BadTag)
        }
    }
}

/// What is wrong with a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A key has the wrong number of digits.
    #[error("line {line}: a key has 64 hexadecimal digits, this one has {length} characters")]
    BadLength {
        /// Line, from 1.
        line: usize,
        /// Characters found.
        length: usize,
    },
    /// A character that is no hexadecimal digit.
    #[error("line {line}: character {position} of the key is not a hexadecimal digit")]
    BadDigit {
        /// Line, from 1.
        line: usize,
        /// Which character of the key, from 1.
        position: usize,
    },
    /// The same key again.
    #[error("line {line}: this key was there before")]
    RepeatedKey {
        /// Line, from 1.
        line: usize,
    },
    /// A third key.
    #[error("line {line}: a third key; at most two can be live")]
    TooManyKeys {
        /// Line, from 1.
        line: usize,
    },
    /// Nothing but comments.
    #[error("there is no key in it")]
    NoKey,
}

fn parse_secret(digits: &str, line: usize) -> Result<[u8; 32], KeyFileError> {
    let length = digits.chars().count();
    if length != 64 {
        return Err(KeyFileError::BadLength { line, length });
    }
    let mut secret = [0; 32];
    for (index, digit) in digits.chars().enumerate() {
        let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or(KeyFileError::BadDigit { line, position: index + 1 })?;
        secret[index / 2] = secret[index / 2] << 4 | value;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"load 300";

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32])
    }

    #[test]
    fn a_tag_verifies_with_either_live_key() {
        let old = Keyring::new(key(1), None);
        let rotating = Keyring::new(key(2), Some(key(1)));

        assert_eq!(rotating.verify(old.signing_id(), MESSAGE, &old.sign(MESSAGE)), Ok(()));
        assert_eq!(
            old.verify(rotating.signing_id(), MESSAGE, &rotating.sign(MESSAGE)),
            Err(DatagramError::UnknownKey(key(2).id()))
        );
    }

    #[test]
    fn a_changed_message_or_tag_is_refused() {
        let ring = Keyring::new(key(1), None);
        let mut tag = ring.sign(MESSAGE);

        assert_eq!(ring.verify(ring.signing_id(), b"load 301", &tag), Err(DatagramError::BadTag));
        tag[15] ^= 1;
        assert_eq!(ring.verify(ring.signing_id(), MESSAGE, &tag), Err(DatagramError::BadTag));
    }

    #[test]
    fn with_a_key_nothing_unsigned_is_believed_and_without_one_nothing_signed() {
        let keyed = Keyring::new(key(1), None);
        let plain = Keyring::unauthenticated();

        assert_eq!(
            keyed.verify(KeyId::NONE, MESSAGE, &plain.sign(MESSAGE)),
            Err(DatagramError::Unauthenticated)
        );
        assert_eq!(plain.verify(KeyId::NONE, MESSAGE, &plain.sign(MESSAGE)), Ok(()));
        assert_eq!(plain.verify(KeyId::NONE, MESSAGE, &[1; 16]), Err(DatagramError::BadTag));
        assert_eq!(
            plain.verify(key(1).id(), MESSAGE, &keyed.sign(MESSAGE)),
            Err(DatagramError::UnknownKey(key(1).id()))
        );
    }

    #[test]
    fn a_key_file_has_comments_blank_lines_and_up_to_two_keys() {
        let text = format!("# cluster key\r\n\r\n  {}  # new\r\n{}\n", "0a".repeat(32), "FF".repeat(32));

        let ring = Keyring::parse(&text).unwrap();

        assert!(ring.key_ids().eq([key(0x0a).id(), key(0xff).id()]));
    }

    #[test]
    fn errors_in_a_key_file_name_the_line() {
        let good = "ab".repeat(32);
        let cases = [
            (String::new(), KeyFileError::NoKey),
            ("# nothing\n".to_owned(), KeyFileError::NoKey),
            (format!("#\n{}", &good[1..]), KeyFileError::BadLength { line: 2, length: 63 }),
            (format!("{}é", &good[1..]), KeyFileError::BadDigit { line: 1, position: 64 }),
            (format!("{good}\n\n{good}"), KeyFileError::RepeatedKey { line: 3 }),
            (
                format!("{good}\n{}\n{}", "01".repeat(32), "02".repeat(32)),
                KeyFileError::TooManyKeys { line: 3 },
            ),
        ];

        for (text, expected) in cases {
            assert_eq!(Keyring::parse(&text).unwrap_err(), expected);
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", Keyring::new(key(0x5a), None));

        assert_eq!(shown, format!("Keyring {{ keys: [Key({})] }}", key(0x5a).id()));
    }
}
