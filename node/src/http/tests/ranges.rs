//! Parts of files (RFC 9110 section 14).

use super::*;
use crate::http::coding::Coding;
use crate::http::condition::Validators;
use crate::http::file_cache::Content;
use crate::http::range::{Span, Wanted, resolve};
use crate::http::representation::Representation;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_TYPE, RANGE};
use hyper::{HeaderMap, Method};
use proptest::prelude::*;
use std::time::SystemTime;

/// Bytes that differ everywhere, so that a wrong offset shows.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect()
}

async fn serve_file(length: usize) -> (tempfile::TempDir, Running, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    let bytes = content(length);
    std::fs::write(root.path().join("file.bin"), &bytes).unwrap();
    let server = start(Some(root.path()), 8).await;
    (root, server, bytes)
}

/// The parts of a multipart body: Content-Range and content of each.
fn parts(media_type: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect("it is multipart");
    let delimiter = format!("\r\n--{boundary}");
    let with_start = [b"\r\n", body].concat();
    let find = |from: usize, what: &[u8]| {
        from + with_start[from..].windows(what.len()).position(|window| window == what).expect("it goes on")
    };
    let (mut parts, mut at) = (Vec::new(), find(0, delimiter.as_bytes()) + delimiter.len());
    while !with_start[at..].starts_with(b"--\r\n") {
        let head_end = find(at, b"\r\n\r\n");
        let next = find(head_end, delimiter.as_bytes());
        let head = std::str::from_utf8(&with_start[at..head_end]).unwrap();
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).unwrap();
        assert!(head.contains("\r\nContent-Type: application/octet-stream"), "{head}");
        parts.push((range.to_owned(), with_start[head_end + 4..next].to_vec()));
        at = next + delimiter.len();
    }
    assert_eq!(with_start.len(), at + 4, "nothing follows the last part");
    parts
}

#[tokio::test]
async fn one_range_of_small_and_large_files_is_206_with_its_place() {
    for length in [1000, 700_000] {
        let (_root, server, bytes) = serve_file(length).await;
        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=100-899", 100, 899),
            ("bytes=500-", 500, length - 1),
            ("bytes=-400", length - 400, length - 1),
            ("bytes=10-99999999", 10, length - 1),
            ("bytes=99999999-,3-4", 3, 4),
        ] {
            let answer = request(&server, "GET", "/file.bin", &[("Range", range)]).await;

            assert_eq!(answer.status, 206, "{range} of {length}");
            assert_eq!(answer.field("content-range"), format!("bytes {first}-{last}/{length}"));
            assert_eq!(answer.field("content-type"), "application/octet-stream");
            assert!(answer.body == bytes[first..=last], "{range} of {length}");
        }
    }
}

#[tokio::test]
async fn several_ranges_are_sent_as_parts_in_the_order_asked_for() {
    for length in [1000, 700_000] {
        let (_root, server, bytes) = serve_file(length).await;

        let answer = request(&server, "GET", "/file.bin", &[("Range", "bytes=500-599, 0-9,-1")]).await;

        assert_eq!(answer.status, 206);
        assert_eq!(answer.field("content-length"), answer.body.len().to_string());
        assert!(!answer.headers.contains_key("content-range"), "it is in the parts");
        let expected = [(500, 599), (0, 9), (length - 1, length - 1)]
            .map(|(first, last)| (format!("bytes {first}-{last}/{length}"), bytes[first..=last].to_vec()));
        assert_eq!(parts(answer.field("content-type"), &answer.body), expected);
    }
}

#[tokio::test]
async fn a_range_beyond_the_end_is_416_with_the_length() {
    let (_root, server, _) = serve_file(1000).await;

    let answer = request(&server, "GET", "/file.bin", &[("Range", "bytes=1000-")]).await;

    assert_eq!((answer.status, answer.field("content-range")), (416, "bytes */1000"));
}

#[tokio::test]
async fn ranges_that_are_not_understood_or_not_for_get_are_ignored() {
    let (_root, server, _) = serve_file(1000).await;
    for range in ["bytes=9-1", "lines=0-1", "bytes=0-,0-", "nonsense", "bytes=\u{e9}-"] {
        let answer = request(&server, "GET", "/file.bin", &[("Range", range)]).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1000), "{range}");
    }
    let twice = request(&server, "GET", "/file.bin", &[("Range", "bytes=0-0"), ("Range", "bytes=1-1")]).await;
    let head = request(&server, "HEAD", "/file.bin", &[("Range", "bytes=0-0")]).await;

    assert_eq!(twice.status, 200);
    assert_eq!((head.status, head.field("content-length")), (200, "1000"));
}

#[tokio::test]
async fn a_part_is_sent_only_of_what_the_client_has_the_rest_of() {
    let (_root, server, _) = serve_file(1000).await;
    let etag = request(&server, "GET", "/file.bin", &[]).await.field("etag").to_owned();
    for (if_range, status) in
        [(etag.as_str(), 206), ("\"other\"", 200), ("Tue, 15 Nov 1994 12:45:26 GMT", 200)]
    {
        let fields = [("Range", "bytes=0-9"), ("If-Range", if_range)];
        assert_eq!(request(&server, "GET", "/file.bin", &fields).await.status, status, "{if_range}");
    }
    let fields = [("Range", "bytes=0-9"), ("If-None-Match", etag.as_str())];
    assert_eq!(request(&server, "GET", "/file.bin", &fields).await.status, 304, "conditions come first");
}

proptest! {
    #[test]
    fn any_range_field_is_answered_with_the_bytes_it_names(
        value in "bytes=( ?[0-9]{0,3}-[0-9]{0,3},?){1,5}|bytes=[-,0-9 ]{0,20}|[ -~]{0,20}",
        length in 0_usize..300,
    ) {
        let bytes = content(length);
        let validators = Validators {
            etag: hyper::header::HeaderValue::from_static("\"a\""),
            modified: SystemTime::UNIX_EPOCH,
            settled: true,
        };
        let representation = Representation {
            media_type: hyper::header::HeaderValue::from_static("application/octet-stream"),
            coding: Coding::Identity,
            varies: false,
            validators,
            content: Content::Bytes(bytes.clone().into()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value.parse().unwrap());

        let (head, body) = representation.respond(&Method::GET, &headers).into_parts();

        let promised = body.length();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(body.collect()).unwrap().to_bytes();
        prop_assert_eq!(promised, body.len() as u64);
        match resolve(value.as_bytes(), length as u64) {
            Wanted::Whole => prop_assert!(head.status == 200 && body == bytes),
            Wanted::Unsatisfiable => prop_assert_eq!(head.status, 416),
            Wanted::Parts(spans) => {
                let slice = |span: &Span| {
                    bytes[usize::try_from(span.first).unwrap()..=usize::try_from(span.last).unwrap()].to_vec()
                };
                prop_assert_eq!(head.status, 206);
                match spans.as_slice() {
                    [span] => prop_assert_eq!(body.to_vec(), slice(span)),
                    spans => {
                        let media_type = head.headers[CONTENT_TYPE].to_str().unwrap();
                        let sent: Vec<_> = parts(media_type, &body).into_iter().map(|(_, part)| part).collect();
                        prop_assert_eq!(sent, spans.iter().map(slice).collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
