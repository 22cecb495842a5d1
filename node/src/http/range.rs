//! The Range header field (RFC 9110 section 14): what a client wants of a representation whose length is known.
//!
//! It refuses to be made to work: a field that is malformed, in another unit, or wants more than the representation
//! has, is ignored, as section 14.2 allows, and the client gets everything.

/// Ranges in one field at most. Video players and download managers ask for one, PDF viewers for a few.
const RANGES_MAX: usize = 16;

/// Consecutive bytes of a representation; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Offset of the first byte.
    pub(crate) first: u64,
    /// Offset of the last byte.
    pub(crate) last: u64,
}

impl Span {
    /// Bytes in it.
    pub(crate) fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What has to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: 200.
    Whole,
    /// These parts, in the client's order, at least one: 206.
    Parts(Vec<Span>),
    /// Nothing that there is: 416.
    Unsatisfiable,
}

/// One element of the field.
#[derive(Clone, Copy)]
enum RangeSpec {
    /// From an offset to an offset, or to the end.
    Between(u64, Option<u64>),
    /// The last bytes, so many.
    Suffix(u64),
}

/// What a field value wants of a representation of `length` bytes.
pub(crate) fn resolve(value: &[u8], length: u64) -> Wanted {
    let Some(specs) = parse(value) else { return Wanted::Whole };
    let asks_for_a_suffix = specs.iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..)));
    if length == 0 && asks_for_a_suffix {
        // Satisfiable (section 14.1.2), but Content-Range has no words for zero bytes.
        return Wanted::Whole;
    }
    let spans: Vec<Span> = specs.into_iter().filter_map(|spec| span(spec, length)).collect();
    if spans.is_empty() {
        return Wanted::Unsatisfiable;
    }
    let total = spans.iter().try_fold(0_u64, |total, span| total.checked_add(span.length()));
    match total {
        Some(total) if total <= length => Wanted::Parts(spans),
        // More than everything: overlaps that would multiply what is sent (section 14.2).
        _ => Wanted::Whole,
    }
}

/// The elements of a field, or `None` if it is to be ignored.
fn parse(value: &[u8]) -> Option<Vec<RangeSpec>> {
    let equals = value.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = (&value[..equals], &value[equals + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in set.split(|byte| *byte == b',') {
        let element = element.trim_ascii();
        // Empty elements of a list are skipped (section 5.6.1.2).
        if element.is_empty() {
            continue;
        }
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(parse_spec(element)?);
    }
    if specs.is_empty() { None } else { Some(specs) }
}

fn parse_spec(element: &[u8]) -> Option<RangeSpec> {
    let dash = element.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&element[..dash], &element[dash + 1..]);
    if first.is_empty() {
        return Some(RangeSpec::Suffix(parse_number(last)?));
    }
    let first = parse_number(first)?;
    let last = if last.is_empty() { None } else { Some(parse_number(last)?) };
    // A last position before the first makes the whole field invalid (section 14.1.2).
    if last.is_some_and(|last| last < first) { None } else { Some(RangeSpec::Between(first, last)) }
}

/// A decimal number. What does not fit is larger than every file, so the largest number does for it.
fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// The part of a representation that an element means, if there is any.
fn span(spec: RangeSpec, length: u64) -> Option<Span> {
    let end = length.checked_sub(1)?;
    match spec {
        RangeSpec::Between(first, last) if first <= end => {
            Some(Span { first, last: last.unwrap_or(end).min(end) })
        }
        RangeSpec::Suffix(count @ 1..) => Some(Span { first: length.saturating_sub(count), last: end }),
        RangeSpec::Between(..) | RangeSpec::Suffix(0) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(spans: &[(u64, u64)]) -> Wanted {
        Wanted::Parts(spans.iter().map(|&(first, last)| Span { first, last }).collect())
    }

    #[test]
    fn the_examples_of_rfc_9110_section_14_1_2_mean_what_it_says() {
        for (value, wanted) in [
            ("bytes=0-499", parts(&[(0, 499)])),
            ("bytes=500-999", parts(&[(500, 999)])),
            ("bytes=-500", parts(&[(9500, 9999)])),
            ("bytes=9500-", parts(&[(9500, 9999)])),
            ("bytes=0-0,-1", parts(&[(0, 0), (9999, 9999)])),
            ("bytes= 0-999, 4500-5499, -1000", parts(&[(0, 999), (4500, 5499), (9000, 9999)])),
            ("bytes=500-600,601-999", parts(&[(500, 600), (601, 999)])),
            ("bytes=500-700,601-999", parts(&[(500, 700), (601, 999)])),
        ] {
            assert_eq!(resolve(value.as_bytes(), 10_000), wanted, "{value}");
        }
    }

    #[test]
    fn what_is_not_there_is_cut_off_or_unsatisfiable() {
        for (value, length, wanted) in [
            ("bytes=5-999999999999999999999999", 10, parts(&[(5, 9)])),
            ("bytes=-99999999999999999999999", 10, parts(&[(0, 9)])),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=10-20,3-4", 10, parts(&[(3, 4)])),
            ("bytes=0-0", 0, Wanted::Unsatisfiable),
            ("bytes=-1", 0, Wanted::Whole),
        ] {
            assert_eq!(resolve(value.as_bytes(), length), wanted, "{value} of {length}");
        }
    }

    #[test]
    fn what_is_malformed_or_greedy_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1));
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1 - 2",
            "bytes=1-2-3",
            "bytes =0-1",
            "items=0-1",
            "bytes=0-1;2-3",
            "bytes=+1-2",
            "bytes=0-,0-",
            "bytes=-5,0-5",
            "0-1",
            &many,
        ] {
            assert_eq!(resolve(value.as_bytes(), 10), Wanted::Whole, "{value}");
        }
    }

    /// The same by counting: which offsets does each element name? `None` if the field is to be ignored.
    fn offsets_by_element(value: &str, length: u64) -> Option<Vec<Vec<u64>>> {
        let (unit, set) = value.split_once('=')?;
        let elements: Vec<&str> = set
            .split(',')
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|e| !e.is_empty())
            .collect();
        if unit.to_lowercase() != "bytes" || elements.is_empty() || elements.len() > 16 {
            return None;
        }
        let largest = u128::from(u64::MAX);
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true if text.len() > 30 => Some(largest),
            true => text.parse::<u128>().ok().map(|number| number.min(largest)),
            false => None,
        };
        let mut named = Vec::new();
        for element in elements {
            let (first, last) = element.split_once('-')?;
            let contains: Box<dyn Fn(u128) -> bool> = if first.is_empty() {
                let count = number(last)?;
                if length == 0 && count > 0 {
                    // Satisfiable, yet nothing to name; malformed neighbours are ignored just as well.
                    return None;
                }
                Box::new(move |offset| u128::from(length) - offset <= count)
            } else {
                let first = number(first)?;
                let last = if last.is_empty() { largest } else { number(last)? };
                if last < first {
                    return None;
                }
                Box::new(move |offset| first <= offset && offset <= last)
            };
            named.push((0..length).filter(|offset| contains(u128::from(*offset))).collect::<Vec<_>>());
        }
        Some(named)
    }

    fn by_counting(value: &str, length: u64) -> Wanted {
        let Some(mut named) = offsets_by_element(value, length) else { return Wanted::Whole };
        named.retain(|offsets| !offsets.is_empty());
        if named.is_empty() {
            return Wanted::Unsatisfiable;
        }
        if named.iter().map(Vec::len).sum::<usize>() as u64 > length {
            return Wanted::Whole;
        }
        parts(&named.iter().map(|offsets| (offsets[0], offsets[offsets.len() - 1])).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_field_of_plausible_shape_means_what_counting_says(
            value in "(bytes|Bytes|items)=( ?[0-9]{0,2}-[0-9]{0,2}\t?,?){0,18}",
            length in 0_u64..120,
        ) {
            prop_assert_eq!(resolve(value.as_bytes(), length), by_counting(&value, length));
        }

        #[test]
        fn any_field_at_all_means_what_counting_says(
            value in "(bytes=)?[-,=0-9a \t]{0,40}|[ -~]{0,40}|bytes=[0-9]{0,40}-[0-9]{0,40}",
            length in 0_u64..120,
        ) {
            prop_assert_eq!(resolve(value.as_bytes(), length), by_counting(&value, length));
        }
    }
}
