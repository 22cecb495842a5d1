//! What the built-in server answers: a request's method and path in, a response out.

use super::body::ResponseBody;
use super::deliveries::Deliveries;
use super::figures::Figures;
use super::files::{Content, Directory, Found, FoundFile, decode_path};
use dpr_model::NodeId;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, IF_MODIFIED_SINCE, LAST_MODIFIED,
    LOCATION, SERVER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Serialize;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// What is served, shared by all connections.
#[derive(Debug)]
pub(crate) struct Site {
    /// This node.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: String,
    /// Files, or nothing for the built-in page.
    pub(crate) files: Option<Arc<Directory>>,
    /// Whose connections come through which local address.
    pub(crate) deliveries: watch::Receiver<Arc<Deliveries>>,
    /// Counted for the load sampler.
    pub(crate) figures: Arc<Figures>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The server's, usually a delivery address.
    pub(crate) local: SocketAddr,
    /// The client's.
    pub(crate) client: SocketAddr,
}

/// The answer to `/.dpr/whoami`.
#[derive(Debug, Serialize)]
struct WhoAmI<'a> {
    /// The node that answers: the real server.
    node: String,
    /// Its name.
    name: &'a str,
    /// The home of the service address: the director.
    director: String,
    /// What the client connected to.
    service: String,
    /// The client, as this node sees it.
    client: String,
}

impl Site {
    /// Answers a request.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, ends: Ends) -> Response<ResponseBody> {
        let _in_flight = self.figures.begin();
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => self.resource(request, ends).await,
            _ => not_allowed(),
        };
        let length = response.body().length();
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("dpr"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Not in 304, which would speak of the length of another response (RFC 9110 section 8.6).
        if response.status() != StatusCode::NOT_MODIFIED {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if request.method() == Method::HEAD {
            *response.body_mut() = ResponseBody::Whole(Bytes::new());
        }
        response
    }

    async fn resource<B>(&self, request: &Request<B>, ends: Ends) -> Response<ResponseBody> {
        let raw = request.uri().path();
        match (raw, &self.files) {
            ("/.dpr/whoami", _) => self.whoami(ends),
            ("/.dpr/health", _) => text(StatusCode::OK, "ok\n"),
            (_, Some(files)) => file(Arc::clone(files), raw, request.headers()).await,
            ("/", None) => self.page(ends),
            (_, None) => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn whoami(&self, ends: Ends) -> Response<ResponseBody> {
        let (service, director) = self.deliveries.borrow().service_of(ends.local, self.node);
        let answer = WhoAmI {
            node: self.node.to_string(),
            name: &self.name,
            director: director.to_string(),
            service: service.to_string(),
            client: canonical(ends.client).to_string(),
        };
        let body = serde_json::to_vec(&answer).expect("strings become JSON");
        let mut response = respond(StatusCode::OK, "application/json", body.into());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn page(&self, ends: Ends) -> Response<ResponseBody> {
        let (service, director) = self.deliveries.borrow().service_of(ends.local, self.node);
        let name = escape_html(&self.name);
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><title>{name}</title>\n<h1>{name}</h1>\n\
             <p>Node {} serves you. You asked for {service}, whose director is {director}.\n",
            self.node
        );
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", body.into());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

async fn file(files: Arc<Directory>, raw: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let Some(path) = decode_path(raw).filter(|path| path.starts_with('/')) else {
        return text(StatusCode::BAD_REQUEST, "bad path\n");
    };
    let found = tokio::task::spawn_blocking(move || files.find(&path)).await;
    match found.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
        Ok(Found::File(file)) => file_response(file, headers),
        Ok(Found::Directory) => redirect_into(raw),
        Ok(Found::Nothing) => text(StatusCode::NOT_FOUND, "not found\n"),
        Err(error) => {
            tracing::warn!(path = raw, %error, "cannot serve a file");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
        }
    }
}

fn file_response(file: FoundFile, headers: &HeaderMap) -> Response<ResponseBody> {
    let known =
        headers.get(IF_MODIFIED_SINCE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    let mut response = if known.is_some_and(|known| file.modified <= known) {
        let mut response = Response::new(ResponseBody::Whole(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let body = match file.content {
            Content::Whole(bytes) => ResponseBody::Whole(bytes),
            Content::Open(file, remaining) => ResponseBody::File { file: file.into(), remaining },
        };
        respond(StatusCode::OK, &file.media_type, body)
    };
    if let Ok(modified) = HeaderValue::try_from(httpdate::fmt_http_date(file.modified)) {
        response.headers_mut().insert(LAST_MODIFIED, modified);
    }
    response
}

/// Relative links in a directory's page need a final slash. One slash at the start, so that nobody is sent to another
/// host.
fn redirect_into(raw: &str) -> Response<ResponseBody> {
    let location = format!("/{}/", raw.trim_matches('/'));
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "moved\n");
    match HeaderValue::try_from(location) {
        Ok(location) => drop(response.headers_mut().insert(LOCATION, location)),
        Err(_) => return text(StatusCode::BAD_REQUEST, "bad path\n"),
    }
    response
}

fn not_allowed() -> Response<ResponseBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<ResponseBody> {
    respond(status, "text/plain; charset=utf-8", ResponseBody::Whole(Bytes::from_static(body.as_bytes())))
}

fn respond(status: StatusCode, media_type: &str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    response
}

fn canonical(socket: SocketAddr) -> SocketAddr {
    let address: IpAddr = socket.ip().to_canonical();
    SocketAddr::new(address, socket.port())
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes.into())
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}
