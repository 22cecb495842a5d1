//! The client's side of a daemon's control socket: one JSON line there, one JSON line back.

use crate::error::LabError;
use dpr_model::LoadPermille;
use dpr_model::status::{Connection, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a daemon may take to answer whoever has time.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon's control socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control<'a> {
    pub(crate) node: &'a str,
    pub(crate) socket: &'a Path,
    /// How long it may take to answer.
    pub(crate) patience: Duration,
}

impl Control<'_> {
    pub(crate) fn status(self) -> Result<Status, LabError> {
        self.ask(&json!({ "request": "status" }), "status")
    }

    pub(crate) fn connections(self, limit: u32) -> Result<Vec<Connection>, LabError> {
        self.ask(&json!({ "request": "conns", "limit": limit }), "conns")
    }

    pub(crate) fn override_load(self, load: Option<LoadPermille>) -> Result<(), LabError> {
        let request = json!({ "request": "override-load", "permille": load });
        match self.exchange(&request)? {
            Value::String(word) if word == "done" => Ok(()),
            other => Err(self.surprise(&request, &other)),
        }
    }

    /// Asks and takes the answer out of the object that names it.
    fn ask<T: DeserializeOwned>(self, request: &Value, name: &str) -> Result<T, LabError> {
        let answer = self.exchange(request)?;
        let held = answer.as_object().and_then(|object: &Map<String, Value>| object.get(name)).cloned();
        held.and_then(|value| serde_json::from_value(value).ok())
            .ok_or_else(|| self.surprise(request, &answer))
    }

    fn exchange(self, request: &impl Serialize) -> Result<Value, LabError> {
        let converse = || -> io::Result<Value> {
            let mut stream = UnixStream::connect(self.socket)?;
            stream.set_read_timeout(Some(self.patience))?;
            let mut line = serde_json::to_string(request)?;
            line.push('\n');
            stream.write_all(line.as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        let timed_out = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.patience))
            }
            _ => error,
        };
        converse()
            .map_err(timed_out)
            .map_err(LabError::io(|| format!("ask {} through {}", self.node, self.socket.display())))
    }

    fn surprise(self, request: &Value, answer: &Value) -> LabError {
        LabError::Control {
            node: self.node.to_owned(),
            request: request.to_string(),
            answer: answer.to_string(),
        }
    }
}
