//! Content codings (RFC 9110 section 8.4.1) and what a client's Accept-Encoding says about them (section 12.5.3).
//!
//! Nothing is compressed here: what can be sent is what lies beside a file.

use hyper::HeaderMap;
use hyper::header::ACCEPT_ENCODING;

/// How a file's bytes are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As they are.
    Identity,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// What may lie beside a file.
    pub(crate) const COMPRESSED: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// What the file's name ends in, after its own ending.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// The value of Content-Encoding, if there has to be one.
    pub(crate) fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
        }
    }
}

/// How much a client wants a coding; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Preference {
    /// Not at all.
    Refused,
    /// It did not say, and takes it.
    Unlisted,
    /// Its weight, from 1 to 1000.
    Listed(u16),
}

/// The parsed field, of all its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcceptEncoding {
    identity: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    any: Option<u16>,
}

impl AcceptEncoding {
    /// What a request says. Elements that make no sense are skipped; of two for one coding the first counts.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = headers.get_all(ACCEPT_ENCODING).iter();
        for element in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let Some((coding, weight)) = parse_element(element) else { continue };
            let field = match coding.to_ascii_lowercase().as_slice() {
                b"identity" => &mut accepted.identity,
                b"br" => &mut accepted.brotli,
                // Section 8.4.1.3: the same thing.
                b"gzip" | b"x-gzip" => &mut accepted.gzip,
                b"*" => &mut accepted.any,
                _ => continue,
            };
            field.get_or_insert(weight);
        }
        accepted
    }

    /// How much the client wants a coding.
    pub(crate) fn preference(&self, coding: Coding) -> Preference {
        let listed = match coding {
            Coding::Identity => self.identity,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        match (listed.or(self.any), coding) {
            (Some(0), _) => Preference::Refused,
            (Some(weight), _) => Preference::Listed(weight),
            (None, Coding::Identity) => Preference::Unlisted,
            (None, _) => Preference::Refused,
        }
    }
}

/// A coding and its weight in thousandths (section 12.4.2).
fn parse_element(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut halves = element.splitn(2, |byte| *byte == b';');
    let coding = halves.next()?.trim_ascii();
    let weight = match halves.next() {
        None => 1000,
        Some(parameter) => parse_weight(parameter.trim_ascii())?,
    };
    Some((coding, weight))
}

fn parse_weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', units, fraction @ ..] = parameter else { return None };
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = match units {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, scale) in digits.iter().zip([100, 10, 1]) {
        weight += digit.is_ascii_digit().then(|| u16::from(digit - b'0'))? * scale;
    }
    if weight <= 1000 { Some(weight) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Gzip, Identity};
    use Preference::{Listed, Refused, Unlisted};
    use hyper::header::HeaderValue;

    fn preferences(lines: &[&str]) -> [Preference; 3] {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        let accepted = AcceptEncoding::of(&headers);
        [Identity, Brotli, Gzip].map(|coding| accepted.preference(coding))
    }

    #[test]
    fn fields_mean_what_rfc_9110_section_12_5_3_says() {
        for (lines, expected) in [
            (vec![], [Unlisted, Refused, Refused]),
            (vec![""], [Unlisted, Refused, Refused]),
            (vec!["compress, gzip"], [Unlisted, Refused, Listed(1000)]),
            (vec!["*"], [Listed(1000); 3]),
            (vec!["compress;q=0.5, gzip;q=1.0"], [Unlisted, Refused, Listed(1000)]),
            (vec!["gzip;q=1.0, identity; q=0.5, *;q=0"], [Listed(500), Refused, Listed(1000)]),
            (vec!["gzip", "br;q=0.001"], [Unlisted, Listed(1), Listed(1000)]),
            (vec!["identity;q=0"], [Refused, Refused, Refused]),
            (vec!["BR ; Q=0.25,x-gzip"], [Unlisted, Listed(250), Listed(1000)]),
        ] {
            assert_eq!(preferences(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn weights_out_of_grammar_make_their_element_void() {
        for weight in ["q=2", "q=1.001", "q=0.0001", "q=.5", "q=", "q", "v=1", "q=0,5", "q=-1", "q=1;q=1"] {
            assert_eq!(preferences(&[&format!("gzip;{weight}")])[2], Refused, "{weight}");
        }
    }
}
