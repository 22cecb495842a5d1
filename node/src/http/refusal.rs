//! What is refused before a path is looked at: requests that two readers could understand differently, request bodies,
//! and methods that a site of files does not have.
//!
//! hyper has refused broken syntax before, contradictory and malformed Content-Length fields, and Transfer-Encoding
//! that does not end in `chunked`.

use super::body::ResponseBody;
use super::text;
use hyper::body::Body;
use hyper::header::{ALLOW, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};

/// The value of Allow.
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// The response to a request that is not for a resource, or not to be answered; `None` for GET and HEAD in order.
pub(crate) fn refuse<B: Body>(request: &Request<B>) -> Option<Response<ResponseBody>> {
    if !has_one_host(request) {
        // Also the next request on this connection is of somebody who cannot speak HTTP.
        return Some(closing(text(StatusCode::BAD_REQUEST, "one Host field is needed\n")));
    }
    let refusal = coding(request.headers()).or_else(|| method(request.method()));
    if request.body().is_end_stream() {
        return refusal;
    }
    // Whatever the body is, the connection ends, so that none of it is taken for a request.
    let refusal = refusal.filter(|response| !response.status().is_success());
    Some(closing(
        refusal.unwrap_or_else(|| text(StatusCode::PAYLOAD_TOO_LARGE, "no request body is wanted\n")),
    ))
}

/// RFC 9112 section 3.2: HTTP/1.1 requests have exactly one valid Host field, others one at most.
fn has_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, None) => request.version() < Version::HTTP_11,
        (Some(host), None) => is_host(host),
        _ => false,
    }
}

/// A host and perhaps a port (RFC 9110 section 7.2). It may be empty, if the target of the request has no authority.
fn is_host(value: &HeaderValue) -> bool {
    value.is_empty() || !value.as_bytes().contains(&b'@') && Authority::try_from(value.as_bytes()).is_ok()
}

/// RFC 9112 section 6.1: transfer codings other than chunked are not implemented, and chunked comes once.
fn coding(headers: &HeaderMap) -> Option<Response<ResponseBody>> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let first = codings.next()?;
    if !first.eq_ignore_ascii_case(b"chunked") {
        return Some(text(StatusCode::NOT_IMPLEMENTED, "only the transfer coding chunked is known\n"));
    }
    codings.next().map(|_| text(StatusCode::BAD_REQUEST, "chunked is the only and last transfer coding\n"))
}

fn method(method: &Method) -> Option<Response<ResponseBody>> {
    let mut response = match *method {
        Method::GET | Method::HEAD => return None,
        Method::OPTIONS => {
            let mut response = Response::new(ResponseBody::EMPTY);
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Method::POST | Method::PUT | Method::DELETE | Method::PATCH | Method::CONNECT | Method::TRACE => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS\n")
        }
        // RFC 9110 section 9.1.
        _ => return Some(text(StatusCode::NOT_IMPLEMENTED, "the method is not known\n")),
    };
    response.headers_mut().insert(ALLOW, ALLOWED);
    Some(response)
}

fn closing(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
