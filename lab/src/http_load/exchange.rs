//! As much of an HTTP/1.1 client as a load client needs: GET, Content-Length, keep-alive.

use crate::breakage::Breakage;
use serde::Deserialize;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a node says of itself and of the connection at `/.dpr/whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Whoami {
    /// The real server: its id as text.
    pub node: String,
    /// The real server's name.
    pub name: String,
    /// Home of the service address that the connection came through: its id as text.
    pub director: String,
    /// What the real server takes for the service socket.
    pub service: String,
    /// The client's socket as the real server sees it.
    pub client: String,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: TcpStream,
    target: SocketAddr,
    received: Vec<u8>,
    /// The server has said that its last answer was the last of all.
    is_over: bool,
}

/// Longest head of a response, bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Longest body of a response, bytes.
const BODY_LEN_MAX: usize = 64 * 1024;

impl Exchange {
    pub(super) async fn open(target: SocketAddr) -> Result<Self, Breakage> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, target, received: Vec::new(), is_over: false })
    }

    pub(super) fn client(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// True when the server wants no more requests on this connection.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Asks who serves this connection; `last` tells the server to close it after the answer.
    pub(super) async fn whoami(&mut self, last: bool) -> Result<Whoami, Breakage> {
        let connection = if last { "close" } else { "keep-alive" };
        let request =
            format!("GET /.dpr/whoami HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.target);
        self.stream.write_all(request.as_bytes()).await?;
        let head_len = self.receive_head().await?;
        let head = Head::parse(&self.received[..head_len])?;
        self.is_over = head.closes;
        self.receive_until(head_len + head.content_length).await?;
        let body: Vec<u8> = self.received.drain(..head_len + head.content_length).skip(head_len).collect();
        if head.status != 200 {
            return Err(Breakage::WrongContent(format!("status {}", head.status)));
        }
        serde_json::from_slice(&body).map_err(|error| Breakage::WrongContent(error.to_string()))
    }

    async fn receive_head(&mut self) -> Result<usize, Breakage> {
        loop {
            if let Some(position) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(position + 4);
            }
            if self.received.len() > HEAD_LEN_MAX {
                return Err(Breakage::WrongContent("a response head without an end".to_owned()));
            }
            self.receive_more().await?;
        }
    }

    async fn receive_until(&mut self, length: usize) -> Result<(), Breakage> {
        while self.received.len() < length {
            self.receive_more().await?;
        }
        Ok(())
    }

    async fn receive_more(&mut self) -> Result<(), Breakage> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(Breakage::ClosedEarly),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    content_length: usize,
    /// The connection ends with this response.
    closes: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, Breakage> {
        let wrong = |what: &str| Breakage::WrongContent(what.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("a response head that is no text"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| wrong("no HTTP/1.1 status line"))?;
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let field = |wanted: &str| {
            let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        let content_length = field("content-length").and_then(|value| value.parse().ok());
        let content_length = content_length.ok_or_else(|| wrong("no content-length"))?;
        let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if content_length > BODY_LEN_MAX {
            return Err(wrong("a body that is too long"));
        }
        Ok(Self { status, content_length, closes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_status_and_length_whatever_the_case() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\ncOntent-Length: 12\r\nx: y\r\n\r\n");
        assert_eq!(head, Ok(Head { status: 200, content_length: 12, closes: false }));
        let last = Head::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nconnection: close\r\n\r\n");
        assert!(last.unwrap().closes);
    }

    #[test]
    fn a_head_without_length_or_with_a_huge_one_is_wrong_content() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            b"SSH-2.0\r\ncontent-length: 1\r\n\r\n",
            b"\xff\xff",
        ] {
            assert!(matches!(Head::parse(bytes), Err(Breakage::WrongContent(_))));
        }
    }

    #[test]
    fn whoami_is_read_whatever_else_the_node_says() {
        let text = r#"{"node":"n0a4d000b","name":"n1","director":"n0a4d000c","service":"10.77.0.12:80",
            "client":"10.77.0.101:4000","later":1}"#;
        let whoami: Whoami = serde_json::from_str(text).unwrap();
        assert_eq!((whoami.name.as_str(), whoami.director.as_str()), ("n1", "n0a4d000c"));
    }
}
