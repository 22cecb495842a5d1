//! A real server on a real socket, spoken to byte by byte.

use super::*;
use dpr_model::NodeId;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Running {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    site: Arc<Site>,
    task: tokio::task::JoinHandle<()>,
    _deliveries: watch::Sender<Arc<Deliveries>>,
}

async fn start(root: Option<&Path>, slots: usize) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (deliveries, receiver) = watch::channel(Arc::default());
    let site = Arc::new(Site {
        node: NodeId(11),
        name: "<a>".to_owned(),
        files: root.map(|root| Arc::new(Directory::open(root).unwrap())),
        deliveries: receiver,
        figures: Arc::default(),
    });
    let (phase, phase_receiver) = watch::channel(Phase::Serving);
    let address = listener.local_addr().unwrap();
    let slots = Arc::new(Semaphore::new(slots));
    let task = tokio::spawn(serve(listener, Arc::clone(&site), slots, phase_receiver));
    Running { address, phase, site, task, _deliveries: deliveries }
}

/// Sends bytes and reads until the server closes.
async fn exchange(server: &Running, bytes: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(server: &Running, path: &str) -> String {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn whoami_names_node_director_service_and_client() {
    let server = start(None, 8).await;

    let answer = get(&server, "/.dpr/whoami").await;

    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["node"], "n0000000b");
    assert_eq!(body["name"], "<a>");
    assert_eq!(body["director"], "n0000000b");
    assert_eq!(body["service"], server.address.to_string());
    assert!(body["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(server.site.figures.now().answered, 1);
}

#[tokio::test]
async fn the_built_in_page_escapes_the_name() {
    let server = start(None, 8).await;

    assert!(get(&server, "/").await.contains("<h1>&lt;a&gt;</h1>"));
    assert!(get(&server, "/x").await.starts_with("HTTP/1.1 404 "));
    assert!(get(&server, "/.dpr/health").await.ends_with("\r\n\r\nok\n"));
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let server = start(None, 8).await;

    let both = "GET /.dpr/health HTTP/1.1\r\nHost: x\r\n\r\n\
                GET /.dpr/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(&server, both).await;

    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

#[tokio::test]
async fn files_are_served_whole_with_length_and_date() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("index.html"), "<p>home").unwrap();
    std::fs::write(root.path().join("big.txt"), "x".repeat(700_000)).unwrap();
    std::fs::create_dir(root.path().join("sub")).unwrap();
    let server = start(Some(root.path()), 8).await;

    let home = get(&server, "/").await;
    let big = get(&server, "/big.txt").await;
    let head = exchange(&server, "HEAD /big.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let redirect = get(&server, "//sub").await;

    assert!(home.contains("content-length: 7\r\n") && home.ends_with("<p>home"), "{home}");
    assert!(home.contains("content-type: text/html; charset=utf-8\r\n"), "{home}");
    assert_eq!(big.split_once("\r\n\r\n").unwrap().1.len(), 700_000);
    assert!(head.contains("content-length: 700000\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(redirect.contains("location: /sub/\r\n"), "{redirect}");
}

#[tokio::test]
async fn a_file_that_the_client_knows_is_not_sent_again() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), "a").unwrap();
    let server = start(Some(root.path()), 8).await;
    let first = get(&server, "/a").await;
    let date = first.lines().find_map(|line| line.strip_prefix("last-modified: ")).unwrap();

    let request =
        format!("GET /a HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: {date}\r\nConnection: close\r\n\r\n");
    let second = exchange(&server, &request).await;

    assert!(second.starts_with("HTTP/1.1 304 ") && second.ends_with("\r\n\r\n"), "{second}");
}

#[tokio::test]
async fn requests_that_make_no_sense_get_their_status() {
    let root = tempfile::tempdir().unwrap();
    let server = start(Some(root.path()), 8).await;
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400"),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        ("GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = exchange(&server, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
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
async fn a_draining_server_answers_and_closes() {
    let server = start(None, 8).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /.dpr/health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 512];
    assert!(idle.read(&mut first).await.unwrap() > 0);

    server.phase.send_replace(Phase::Draining);
    let closed = idle.read(&mut first).await.unwrap();
    let late = exchange(&server, "GET /.dpr/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.phase.send_replace(Phase::Closing);
    server.task.await.unwrap();

    assert_eq!(closed, 0, "an idle connection is closed");
    assert!(late.ends_with("ok\n"), "a late client is still served");
    assert!(TcpStream::connect(server.address).await.is_err());
}
