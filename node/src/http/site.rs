//! What the built-in server answers: a request's method and path in, a response out.

use super::body::ResponseBody;
use super::deliveries::Deliveries;
use super::figures::Figures;
use super::file_cache::{FileCache, Found};
use super::files::decode_path;
use super::refusal::refuse;
use super::representation::{Representation, choose, not_acceptable};
use dpr_model::NodeId;
use hyper::body::{Body, Bytes};
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, SERVER,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use rustix::io::Errno;
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
    pub(crate) files: Option<FileCache>,
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
    pub(crate) async fn answer<B: Body>(&self, request: &Request<B>, ends: Ends) -> Response<ResponseBody> {
        let _in_flight = self.figures.begin();
        let mut response = match refuse(request) {
            Some(refusal) => refusal,
            None => self.resource(request, ends).await,
        };
        let (status, length) = (response.status(), response.body().length());
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("dpr"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Not in 204, and not in 304, which would speak of another response's length (RFC 9110 section 8.6).
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if request.method() == Method::HEAD {
            *response.body_mut() = ResponseBody::EMPTY;
        }
        response
    }

    async fn resource<B>(&self, request: &Request<B>, ends: Ends) -> Response<ResponseBody> {
        match (request.uri().path(), &self.files) {
            ("/.dpr/whoami", _) => self.whoami(ends),
            ("/.dpr/health", _) => fresh(text(StatusCode::OK, "ok\n")),
            (_, Some(files)) => file(files, request).await,
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
        fresh(respond(StatusCode::OK, "application/json", body.into()))
    }

    fn page(&self, ends: Ends) -> Response<ResponseBody> {
        let (service, director) = self.deliveries.borrow().service_of(ends.local, self.node);
        let name = escape_html(&self.name);
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><title>{name}</title>\n<h1>{name}</h1>\n\
             <p>Node {} serves you. You asked for {service}, whose director is {director}.\n",
            self.node
        );
        fresh(respond(StatusCode::OK, "text/html; charset=utf-8", body.into()))
    }
}

async fn file<B>(files: &FileCache, request: &Request<B>) -> Response<ResponseBody> {
    let Some(path) = decode_path(request.uri().path()).filter(|path| path.starts_with('/')) else {
        return text(StatusCode::BAD_REQUEST, "bad path\n");
    };
    match found(files, &path, request).await {
        Ok(response) => response,
        Err(error) if is_shortage(&error) => {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "too many open files\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        Err(error) => {
            tracing::warn!(path, %error, "cannot serve a file");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
        }
    }
}

async fn found<B>(files: &FileCache, path: &str, request: &Request<B>) -> io::Result<Response<ResponseBody>> {
    // A second look if what was remembered is gone.
    for _ in 0..2 {
        let resource = match files.look_up(path).await? {
            Found::File(resource) => resource,
            Found::Directory => return Ok(redirect_into(request)),
            Found::Nothing => break,
        };
        let Some(variant) = choose(&resource, request.headers()) else { return Ok(not_acceptable()) };
        let Some((content, validators)) = files.content(&resource, variant).await? else {
            files.forget(path);
            continue;
        };
        let representation = Representation {
            media_type: resource.media_type.clone(),
            coding: variant.coding,
            varies: resource.variants.len() > 1,
            validators,
            content,
        };
        return Ok(representation.respond(request.method(), request.headers()));
    }
    Ok(text(StatusCode::NOT_FOUND, "not found\n"))
}

/// The process or the system has no more descriptors, which will pass.
fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Relative links in a directory's page need a final slash. One slash at the start, so that nobody is sent to another
/// host.
fn redirect_into<B>(request: &Request<B>) -> Response<ResponseBody> {
    let path = request.uri().path().trim_matches('/');
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(location) = HeaderValue::try_from(format!("/{path}/{query}")) else {
        return text(StatusCode::BAD_REQUEST, "bad path\n");
    };
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "moved\n");
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A response that no cache may keep (RFC 9111 section 5.2.2.5): another node would answer otherwise.
fn fresh(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response of one line of text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<ResponseBody> {
    respond(status, "text/plain; charset=utf-8", ResponseBody::Whole(Bytes::from_static(body.as_bytes())))
}

fn respond(status: StatusCode, media_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn canonical(socket: SocketAddr) -> SocketAddr {
    let address: IpAddr = socket.ip().to_canonical();
    SocketAddr::new(address, socket.port())
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
