//! What strangers send: each gets its status, and none makes the server hang, fail or take a body for a request.

use super::*;
use proptest::prelude::*;

/// Sends bytes, leaves the connection open, and reads until the server closes it.
async fn status_of(server: &Running, bytes: &str) -> String {
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange(server, bytes)).await;
    let answer = answer.unwrap_or_else(|_| panic!("the server hangs after {bytes:.200}"));
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "a body was taken for a request: {bytes}: {answer}");
    answer.split(' ').nth(1).unwrap_or("closed").to_owned()
}

const CLOSE: &str = "Connection: close\r\n\r\n";

#[tokio::test]
async fn requests_that_make_no_sense_get_their_status() {
    let root = tempfile::tempdir().unwrap();
    let server = start(Some(root.path()), 8).await;
    for (request, status) in [
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n", "400"),
        ("GET /%00 HTTP/1.1\r\nHost: x\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: x\r\n", "400"),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n", "404"),
        ("GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n", "404"),
        ("GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n", "404"),
        ("GET http://x/none HTTP/1.1\r\nHost: x\r\n", "404"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", "405"),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n", "405"),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n", "405"),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n", "405"),
        ("BREW /pot HTTP/1.1\r\nHost: x\r\n", "501"),
        ("get / HTTP/1.1\r\nHost: x\r\n", "501"),
        ("GET / HTTP/1.1\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x y\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: u@x\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : x\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n", "400"),
        ("GET / HTTP/7.3\r\nHost: x\r\n", "400"),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n", "400"),
        ("nonsense\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2}", "400"),
    ] {
        assert_eq!(status_of(&server, &format!("{request}{CLOSE}")).await, status, "{request}");
    }
    assert_eq!(status_of(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "closed");
}

#[tokio::test]
async fn the_methods_that_there_are_are_told() {
    let server = start(None, 8).await;
    for (method, path, status) in [("OPTIONS", "*", 204), ("OPTIONS", "/x", 204), ("PUT", "/x", 405)] {
        let answer = request(&server, method, path, &[]).await;

        assert_eq!((answer.status, answer.field("allow")), (status, "GET, HEAD, OPTIONS"), "{method} {path}");
        assert_eq!(answer.headers.contains_key("content-length"), status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn no_request_is_smuggled_in_a_body() {
    let server = start(None, 8).await;
    let smuggled = "GET /.dpr/whoami HTTP/1.1\r\nHost: x\r\n\r\n";
    for (fields, status) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "400"),
        ("Content-Length: 5, 6\r\n", "400"),
        ("Content-Length: +5\r\n", "400"),
        ("Content-Length: -5\r\n", "400"),
        ("Content-Length: 0x5\r\n", "400"),
        ("Content-Length: 99999999999999999999\r\n", "400"),
        ("Transfer-Encoding: gzip\r\n", "400"),
        ("Transfer-Encoding: chunked, gzip\r\n", "400"),
        ("Transfer-Encoding: xchunked\r\n", "400"),
        ("Transfer-Encoding : chunked\r\n", "400"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501"),
        ("Transfer-Encoding: chunked, chunked\r\n", "400"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400"),
        ("Content-Length: 44\r\n", "413"),
        ("Transfer-Encoding: chunked\r\n", "413"),
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "413"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "413"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        assert_eq!(status_of(&server, &request).await, status, "{fields}");
    }
    let in_version_0 = format!("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    assert_eq!(status_of(&server, &in_version_0).await, "400");
}

#[tokio::test]
async fn a_body_is_refused_without_asking_for_it_and_the_client_learns_why() {
    let server = start(None, 8).await;
    let expecting = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let large =
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n{}", "x".repeat(400_000));

    let asked = Answer::parse(&exchange_bytes(&server, expecting.as_bytes()).await);
    let sent = Answer::parse(&exchange_bytes(&server, large.as_bytes()).await);

    assert_eq!((asked.status, asked.field("connection")), (405, "close"));
    assert_eq!((sent.status, sent.field("connection")), (405, "close"));
}

#[tokio::test]
async fn absurd_heads_are_refused() {
    let server = start(None, 8).await;
    let long_value = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(101));
    let endless_line = "A".repeat(100_000);
    let fits = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n{CLOSE}", "a".repeat(15_000));
    for (request, status) in [
        (long_value, "431"),
        (long_target, "431"),
        (many_fields, "431"),
        (endless_line, "431"),
        (fits, "200"),
    ] {
        assert_eq!(status_of(&server, &request).await, status, "{request:.40}");
    }
}

#[tokio::test]
async fn an_old_client_without_host_is_served() {
    let server = start(None, 8).await;

    assert_eq!(status_of(&server, "GET /.dpr/health HTTP/1.0\r\n\r\n").await, "200");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_server_fail_or_hang(
        requests in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..600),
                    "(GET|HEAD|PUT) [!-~]{0,20} HTTP/1\\.[01]\r\n(Host|Range|If-Match|Content-Length|Transfer-Encoding|\
                     Accept-Encoding|If-Range|Expect): ?[ -~]{0,30}\r\n(Host: x\r\n)?\r\n"
                        .prop_map(String::into_bytes),
            ],
            1..4,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("index.html"), "home").unwrap();
        let healthy = runtime.block_on(async {
            let server = start(Some(root.path()), 8).await;
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            for request in &requests {
                if stream.write_all(request).await.is_err() {
                    break;
                }
            }
            drop(stream.shutdown().await);
            let mut answers = Vec::new();
            let read = stream.read_to_end(&mut answers);
            drop(tokio::time::timeout(Duration::from_secs(5), read).await.expect("the server hangs"));
            get(&server, "/.dpr/health").await.ends_with("ok\n")
        });
        prop_assert!(healthy);
    }
}
