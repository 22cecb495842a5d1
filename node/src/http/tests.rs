//! A real server on a real socket, spoken to byte by byte.

mod caching;
mod limits;
mod malformed;
mod negotiation;
mod ranges;

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
        files: root.map(|root| FileCache::new(Arc::new(Directory::open(root).unwrap()))),
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
async fn exchange_bytes(server: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn exchange(server: &Running, bytes: &str) -> String {
    String::from_utf8_lossy(&exchange_bytes(server, bytes.as_bytes()).await).into_owned()
}

/// A response, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: hyper::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the head ends");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let (status_line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let mut headers = hyper::HeaderMap::new();
        for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
            let name = hyper::header::HeaderName::try_from(name).unwrap();
            headers.append(name, value.try_into().unwrap());
        }
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    /// The value of a field, or nothing.
    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// One request with fields on a connection of its own.
async fn request(server: &Running, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    Answer::parse(&exchange_bytes(server, request.as_bytes()).await)
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
