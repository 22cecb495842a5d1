//! Codings that lie beside a file (RFC 9110 section 12.5.3).

use super::*;

/// A script that lies there as it is, with brotli and with gzip, which is smaller here; and one without siblings.
async fn serve_script() -> (tempfile::TempDir, Running) {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("a.js", "identity"),
        ("a.js.br", "brotli"),
        ("a.js.gz", "gzip"),
        ("alone.js", "alone"),
        ("only.js.gz", "x"),
    ] {
        std::fs::write(root.path().join(name), content).unwrap();
    }
    let server = start(Some(root.path()), 8).await;
    (root, server)
}

#[tokio::test]
async fn the_coding_that_the_client_wants_most_is_sent_and_the_smallest_of_equals() {
    let (_root, server) = serve_script().await;
    for (accepted, coding, body) in [
        ("gzip, deflate, br, zstd", "gzip", "gzip"),
        ("br", "br", "brotli"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br", "brotli"),
        ("gzip;q=0, br;q=0.1", "br", "brotli"),
        ("identity, gzip;q=0.5", "", "identity"),
        ("deflate", "", "identity"),
        ("", "", "identity"),
    ] {
        let answer = request(&server, "GET", "/a.js", &[("Accept-Encoding", accepted)]).await;

        assert_eq!((answer.status, answer.body.as_slice()), (200, body.as_bytes()), "{accepted}");
        assert_eq!(answer.field("content-encoding"), coding, "{accepted}");
        assert_eq!(answer.field("content-type"), "text/javascript; charset=utf-8", "{accepted}");
        assert_eq!(answer.field("vary"), "accept-encoding", "{accepted}");
    }
}

#[tokio::test]
async fn codings_have_tags_of_their_own_and_304_varies_too() {
    let (_root, server) = serve_script().await;
    let plain = request(&server, "GET", "/a.js", &[]).await;
    let etag = plain.field("etag");

    let same = request(&server, "GET", "/a.js", &[("If-None-Match", etag)]).await;
    let other = request(&server, "GET", "/a.js", &[("If-None-Match", etag), ("Accept-Encoding", "br")]).await;
    let range = request(&server, "GET", "/a.js", &[("Range", "bytes=2-3"), ("Accept-Encoding", "br")]).await;

    assert_eq!((same.status, same.field("vary")), (304, "accept-encoding"));
    assert_eq!(other.status, 200);
    assert_eq!((range.status, range.body.as_slice()), (206, b"ot".as_slice()));
    assert_eq!(range.field("content-range"), "bytes 2-3/6");
}

#[tokio::test]
async fn a_client_that_refuses_everything_there_is_gets_406() {
    let (_root, server) = serve_script().await;

    let refusing = request(&server, "GET", "/alone.js", &[("Accept-Encoding", "br, identity;q=0")]).await;
    let content = request(&server, "GET", "/alone.js", &[("Accept-Encoding", "br")]).await;

    assert_eq!((refusing.status, refusing.field("vary")), (406, "accept-encoding"));
    assert_eq!((content.status, content.field("content-encoding"), content.field("vary")), (200, "", ""));
}

#[tokio::test]
async fn siblings_are_files_in_their_own_right_and_nothing_without_the_file() {
    let (_root, server) = serve_script().await;

    let sibling = request(&server, "GET", "/a.js.gz", &[("Accept-Encoding", "gzip")]).await;
    let orphan = request(&server, "GET", "/only.js", &[("Accept-Encoding", "gzip")]).await;

    assert_eq!(sibling.field("content-type"), "application/gzip");
    assert_eq!(sibling.field("content-encoding"), "");
    assert_eq!(orphan.status, 404);
}
