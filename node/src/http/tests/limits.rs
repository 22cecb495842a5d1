//! Every wait ends, and memory and connections are bounded.

use super::*;

/// Waits until the server closes. The clock stands still until everybody waits, and then jumps.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let since = tokio::time::Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn clients_that_say_nothing_or_too_slowly_or_idle_are_closed_after_30_seconds() {
    let server = start(None, 8).await;
    for sent in ["", "GET / HTTP/1.1\r\nHost:", "GET /.dpr/health HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();

        let waited = closed_after(&mut stream).await;

        assert!((29..=31).contains(&waited.as_secs()), "{sent:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_gains_no_time() {
    let server = start(None, 8).await;
    let since = tokio::time::Instant::now();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for byte in "GET / HTTP/1.1\r\nHost: x\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb".as_bytes() {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);

    assert!(answer.is_empty() && since.elapsed() < Duration::from_secs(80), "{:?}", since.elapsed());
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_for_a_place() {
    let server = start(None, 1).await;
    let held = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let waiting = tokio::time::timeout(Duration::from_millis(200), get(&server, "/.dpr/health")).await;
    drop(held);
    let served = get(&server, "/.dpr/health").await;

    assert!(waiting.is_err(), "the only place is taken");
    assert!(served.ends_with("ok\n"));
}

#[tokio::test]
async fn a_client_that_goes_on_sending_after_a_refusal_is_cut_off() {
    let server = start(None, 1).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n").await.unwrap();

    let since = std::time::Instant::now();
    while stream.write_all(&[b'x'; 1000]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(since.elapsed() < Duration::from_secs(5), "it may send for ever");
    }

    assert!(since.elapsed() > Duration::from_millis(1500), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_file_larger_than_memory_allows_is_streamed() {
    let root = tempfile::tempdir().unwrap();
    let length: u64 = 1 << 40;
    std::fs::File::create(root.path().join("sparse.bin")).unwrap().set_len(length).unwrap();
    let server = start(Some(root.path()), 8).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /sparse.bin HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();

    let mut head = vec![0; 4096];
    let read = stream.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let mut rest = vec![0; 8 << 20];
    stream.read_exact(&mut rest).await.unwrap();
    let last = request(&server, "GET", "/sparse.bin", &[("Range", "bytes=-3")]).await;

    assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
    assert_eq!((last.status, last.body.as_slice()), (206, [0; 3].as_slice()));
}

#[tokio::test]
async fn a_file_that_has_become_shorter_ends_its_connection_before_the_promised_length() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file.bin");
    std::fs::write(&path, vec![1; 64 << 20]).unwrap();
    let server = start(Some(root.path()), 8).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);

    std::fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let mut rest = Vec::new();
    drop(stream.read_to_end(&mut rest).await);

    assert!(rest.len() < 64 << 20, "{}", rest.len());
}
