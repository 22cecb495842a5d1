//! Validators and preconditions (RFC 9110 sections 8.8 and 13): does the client have what it asks for, and does what it
//! has still fit?

use hyper::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use hyper::{HeaderMap, Method};
use std::time::SystemTime;

/// What identifies a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    /// An entity tag, as in the ETag field.
    pub(crate) etag: HeaderValue,
    /// When it changed last, whole seconds, not in the future.
    pub(crate) modified: SystemTime,
    /// It cannot have changed twice in the second that `modified` names, so this date, too, is a strong validator
    /// (section 8.8.2.2).
    pub(crate) settled: bool,
}

/// What the preconditions of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer, and heed the Range field.
    Proceed,
    /// Answer with everything: the client's part is of something else.
    ProceedWhole,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD request in the order of section 13.2.2.
pub(crate) fn evaluate(method: &Method, headers: &HeaderMap, current: &Validators) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !any_matches(headers, IF_MATCH, &current.etag, strongly_equal) {
            return Verdict::Failed;
        }
    } else if date(headers, IF_UNMODIFIED_SINCE).is_some_and(|date| current.modified > date) {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_matches(headers, IF_NONE_MATCH, &current.etag, weakly_equal) {
            return Verdict::NotModified;
        }
    } else if date(headers, IF_MODIFIED_SINCE).is_some_and(|date| current.modified <= date) {
        return Verdict::NotModified;
    }
    // Ranges are defined for GET alone (section 14.2).
    if method == Method::GET && if_range_holds(headers, current) {
        Verdict::Proceed
    } else {
        Verdict::ProceedWhole
    }
}

/// Whether a part fits what the client has (section 13.1.5).
fn if_range_holds(headers: &HeaderMap, current: &Validators) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = single(headers, IF_RANGE) else { return false };
    match next_tag(value.as_bytes()) {
        Some((tag, b"")) => strongly_equal(tag, current.etag.as_bytes()),
        Some(_) => false,
        None => current.settled && date(headers, IF_RANGE) == Some(current.modified),
    }
}

/// The only line of a field.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_none() { Some(first) } else { None }
}

/// The date of a field; `None` if it is to be ignored, because it is none or there are several.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(single(headers, name)?.to_str().ok()?).ok()
}

/// Whether a list of entity tags, over all lines of a field, names the current one. It ends where it is malformed.
fn any_matches(
    headers: &HeaderMap,
    name: HeaderName,
    current: &HeaderValue,
    equal: fn(&[u8], &[u8]) -> bool,
) -> bool {
    headers.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        loop {
            rest = rest.trim_ascii_start();
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after;
                continue;
            }
            let Some((tag, after)) = next_tag(rest) else { return false };
            if equal(tag, current.as_bytes()) {
                return true;
            }
            rest = after;
        }
    })
}

/// The entity tag that a text begins with, and what follows it (section 8.8.3).
fn next_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let opening = if text.starts_with(b"W/\"") { 3 } else { 1 };
    if opening == 1 && !text.starts_with(b"\"") {
        return None;
    }
    let opaque = text[opening..].iter().position(|byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))?;
    let end = opening + opaque;
    if text[end] == b'"' { Some(text.split_at(end + 1)) } else { None }
}

/// Strong comparison (section 8.8.3.2): equal, and neither is weak.
fn strongly_equal(a: &[u8], b: &[u8]) -> bool {
    a == b && !a.starts_with(b"W/")
}

/// Weak comparison (section 8.8.3.2): equal but for weakness.
fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// 1994-11-15 12:45:26 UTC, and a second before and after it.
    const BEFORE: &str = "Tue, 15 Nov 1994 12:45:25 GMT";
    const DATE: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
    const AFTER: &str = "Tue, 15 Nov 1994 12:45:27 GMT";

    fn current() -> Validators {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_903_526);
        Validators { etag: HeaderValue::from_static("\"a\""), modified, settled: true }
    }

    fn verdict(current: &Validators, fields: &[(&str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        evaluate(&Method::GET, &headers, current)
    }

    #[test]
    fn each_condition_alone_decides_as_rfc_9110_section_13_1_says() {
        use Verdict::{Failed, NotModified, Proceed, ProceedWhole};
        for (name, value, expected) in [
            ("if-match", "\"a\"", Proceed),
            ("if-match", "\"b\" , \"a\"", Proceed),
            ("if-match", "*", Proceed),
            ("if-match", "W/\"a\"", Failed),
            ("if-match", "\"b\"", Failed),
            ("if-match", "a", Failed),
            ("if-match", "", Failed),
            ("if-none-match", "\"a\"", NotModified),
            ("if-none-match", "W/\"a\"", NotModified),
            ("if-none-match", ",, \"x,\\\",\"a\"", NotModified),
            ("if-none-match", "*", NotModified),
            ("if-none-match", "\"b\"", Proceed),
            ("if-none-match", "\"a", Proceed),
            ("if-modified-since", DATE, NotModified),
            ("if-modified-since", AFTER, NotModified),
            ("if-modified-since", "Tuesday, 15-Nov-94 12:45:26 GMT", NotModified),
            ("if-modified-since", BEFORE, Proceed),
            ("if-modified-since", "yesterday", Proceed),
            ("if-unmodified-since", DATE, Proceed),
            ("if-unmodified-since", BEFORE, Failed),
            ("if-unmodified-since", "yesterday", Proceed),
            ("if-range", "\"a\"", Proceed),
            ("if-range", "W/\"a\"", ProceedWhole),
            ("if-range", "\"a\", \"a\"", ProceedWhole),
            ("if-range", "\"b\"", ProceedWhole),
            ("if-range", DATE, Proceed),
            ("if-range", AFTER, ProceedWhole),
            ("if-range", "yesterday", ProceedWhole),
        ] {
            assert_eq!(verdict(&current(), &[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn conditions_are_evaluated_in_the_order_of_rfc_9110_section_13_2_2() {
        use Verdict::{Failed, NotModified, Proceed, ProceedWhole};
        let cases: [(&[(&str, &str)], Verdict); 6] = [
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Proceed),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed),
            (&[("if-none-match", "\"b\""), ("if-modified-since", AFTER)], Proceed),
            (&[("if-unmodified-since", BEFORE), ("if-none-match", "\"a\"")], Failed),
            (&[("if-none-match", "\"a\""), ("if-range", "\"b\"")], NotModified),
            (&[("if-match", "\"a\""), ("if-range", "\"b\"")], ProceedWhole),
        ];
        for (fields, expected) in cases {
            assert_eq!(verdict(&current(), fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn tags_may_come_in_several_lines_but_dates_may_not() {
        let tags = [("if-none-match", "\"b\""), ("if-none-match", "\"a\"")];
        let dates = [("if-modified-since", DATE), ("if-modified-since", DATE)];

        assert_eq!(verdict(&current(), &tags), Verdict::NotModified);
        assert_eq!(verdict(&current(), &dates), Verdict::Proceed);
    }

    #[test]
    fn a_date_that_could_name_two_versions_does_not_join_parts() {
        let fresh = Validators { settled: false, ..current() };

        assert_eq!(verdict(&fresh, &[("if-range", DATE)]), Verdict::ProceedWhole);
        assert_eq!(verdict(&fresh, &[("if-range", "\"a\"")]), Verdict::Proceed);
    }

    #[test]
    fn a_weak_tag_joins_no_parts_but_revalidates() {
        let weak = Validators { etag: HeaderValue::from_static("W/\"a\""), ..current() };

        assert_eq!(verdict(&weak, &[("if-range", "W/\"a\"")]), Verdict::ProceedWhole);
        assert_eq!(verdict(&weak, &[("if-match", "W/\"a\"")]), Verdict::Failed);
        assert_eq!(verdict(&weak, &[("if-none-match", "\"a\"")]), Verdict::NotModified);
    }
}
