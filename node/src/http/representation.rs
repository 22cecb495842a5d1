//! The response to a GET or HEAD request for a file: which of its codings, whether it is needed at all, and which part.

use super::body::{ResponseBody, Segment};
use super::coding::{AcceptEncoding, Coding, Preference};
use super::condition::{self, Validators, Verdict};
use super::file_cache::{Content, Resource, Variant};
use super::range::{self, Span, Wanted};
use super::text;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue,
    LAST_MODIFIED, RANGE, VARY,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::cmp::Reverse;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// A file in the coding that was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    /// Its media type, coded or not.
    pub(crate) media_type: HeaderValue,
    /// How its bytes are coded.
    pub(crate) coding: Coding,
    /// Other requests might get other codings.
    pub(crate) varies: bool,
    /// What identifies it.
    pub(crate) validators: Validators,
    /// Its bytes.
    pub(crate) content: Content,
}

/// The variant that a client wants most, the smallest of equals; `None` if it refuses all.
pub(crate) fn choose<'a>(resource: &'a Resource, headers: &HeaderMap) -> Option<&'a Variant> {
    let accepted = AcceptEncoding::of(headers);
    let best = resource
        .variants
        .iter()
        .max_by_key(|variant| (accepted.preference(variant.coding), Reverse(variant.length())))?;
    if accepted.preference(best.coding) == Preference::Refused { None } else { Some(best) }
}

/// The response if a client refuses every coding that there is (RFC 9110 section 12.5.3).
pub(crate) fn not_acceptable() -> Response<ResponseBody> {
    let mut response = text(StatusCode::NOT_ACCEPTABLE, "not in a coding that you accept\n");
    response.headers_mut().insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    response
}

impl Representation {
    /// The response to a request.
    pub(crate) fn respond(self, method: &Method, headers: &HeaderMap) -> Response<ResponseBody> {
        let wanted = match condition::evaluate(method, headers, &self.validators) {
            Verdict::Failed => {
                return text(StatusCode::PRECONDITION_FAILED, "the file is not what you expect\n");
            }
            Verdict::NotModified => return self.not_modified(),
            Verdict::ProceedWhole => Wanted::Whole,
            Verdict::Proceed => wanted(headers, self.content.length()),
        };
        let mut response = match wanted {
            Wanted::Unsatisfiable => return self.unsatisfiable(),
            Wanted::Whole => Response::new(self.content.whole()),
            Wanted::Parts(spans) => self.partial(&spans),
        };
        let Self { media_type, coding, .. } = &self;
        let headers = response.headers_mut();
        headers.entry(CONTENT_TYPE).or_insert_with(|| media_type.clone());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Ok(modified) = HeaderValue::try_from(httpdate::fmt_http_date(self.validators.modified)) {
            headers.insert(LAST_MODIFIED, modified);
        }
        if let Some(token) = coding.token() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        self.identify(response)
    }

    /// What RFC 9110 section 15.4.5 wants in 304 as well as in 200 and 206.
    fn identify(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        response.headers_mut().insert(ETAG, self.validators.etag);
        if self.varies {
            response.headers_mut().insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
        }
        response
    }

    fn not_modified(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::EMPTY);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.identify(response)
    }

    fn unsatisfiable(self) -> Response<ResponseBody> {
        let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such part\n");
        let length = format!("bytes */{}", self.content.length());
        insert(&mut response, CONTENT_RANGE, length);
        self.identify(response)
    }

    /// The headers and body of 206; with several parts, as multipart/byteranges (RFC 9110 section 14.6).
    fn partial(&self, spans: &[Span]) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::EMPTY);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let length = self.content.length();
        if let [span] = spans {
            insert(&mut response, CONTENT_RANGE, content_range(*span, length));
            *response.body_mut() = ResponseBody::of(vec![self.content.segment(*span)]);
            return response;
        }
        let boundary = boundary();
        let media_type = String::from_utf8_lossy(self.media_type.as_bytes());
        let mut segments = Vec::with_capacity(2 * spans.len() + 1);
        for span in spans {
            let line_end = if segments.is_empty() { "" } else { "\r\n" };
            let range = content_range(*span, length);
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n"
            );
            segments.push(Segment::Bytes(head.into()));
            segments.push(self.content.segment(*span));
        }
        segments.push(Segment::Bytes(format!("\r\n--{boundary}--\r\n").into()));
        insert(&mut response, CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
        *response.body_mut() = ResponseBody::of(segments);
        response
    }
}

impl Content {
    fn whole(&self) -> ResponseBody {
        match self {
            Self::Bytes(bytes) => ResponseBody::Whole(bytes.clone()),
            Self::File(file, length) => {
                ResponseBody::of(vec![Segment::File { file: Arc::clone(file), offset: 0, length: *length }])
            }
        }
    }

    /// A part of it. Spans come from [`range::resolve`] and so lie within it.
    fn segment(&self, span: Span) -> Segment {
        match self {
            Self::Bytes(bytes) => {
                let offset = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let part: Bytes = bytes.slice(offset(span.first)..offset(span.last + 1));
                Segment::Bytes(part)
            }
            Self::File(file, _) => {
                Segment::File { file: Arc::clone(file), offset: span.first, length: span.length() }
            }
        }
    }
}

/// What the Range field wants. Several lines of it are malformed and so ignored.
fn wanted(headers: &HeaderMap, length: u64) -> Wanted {
    let mut lines = headers.get_all(RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => range::resolve(line.as_bytes(), length),
        _ => Wanted::Whole,
    }
}

fn content_range(span: Span, length: u64) -> String {
    format!("bytes {}-{}/{length}", span.first, span.last)
}

/// A line that no file contains: 64 bits that its author could not know.
fn boundary() -> String {
    format!("dpr-{:016x}", RandomState::new().hash_one("boundary"))
}

fn insert(response: &mut Response<ResponseBody>, name: hyper::header::HeaderName, value: String) {
    let value = HeaderValue::try_from(value).expect("numbers and ASCII make a header value");
    response.headers_mut().insert(name, value);
}
