//! What goes over the control socket: one request as a line of JSON, one response as a line of JSON, then the end.
//!
//! ```text
//! {"request":"status"}                            {"status":{…}}
//! {"request":"conns","limit":1000}                {"conns":[{…},…]}
//! {"request":"explain","flow":{…}}                {"explanation":{…}}
//! {"request":"override-load","permille":950}      "done"
//! {"request":"override-load","permille":null}     "done"
//! {"request":"exclude","address":"192.0.2.12","excluded":true}   "done"
//! {"request":"tell","node":3221225996,"order":"drain"}   {"told":{…}}
//! {"request":"stop"}                              "done"
//! anything else                                   {"error":"…"}
//! ```

use crate::orders::{Order, Progress};
use dpr_model::status::{Connection, Explanation, Status};
use dpr_model::{FlowKey, NodeId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Bytes of a request at most, with its newline.
pub(crate) const REQUEST_MAX: u64 = 4096;

/// Connections in one response at most.
pub(crate) const CONNECTIONS_MAX: u32 = 65_536;

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The node's view of itself and its cluster.
    Status,
    /// The connection-forwarding table.
    Conns {
        /// Entries at most; more than [`CONNECTIONS_MAX`] are not given.
        limit: u32,
    },
    /// Why a connection goes where it goes.
    Explain {
        /// Which.
        flow: FlowKey,
    },
    /// Replaces the measured load; refused unless the daemon was started for tests.
    OverrideLoad {
        /// Load index, or nothing to measure again.
        permille: Option<u16>,
    },
    /// Takes a service address out of DNS on all nodes, or back.
    Exclude {
        /// Which.
        address: IpAddr,
        /// Out, or back.
        excluded: bool,
    },
    /// Has a node do something: this one, or another one of the cluster.
    Tell {
        /// Which.
        node: NodeId,
        /// What.
        order: Order,
    },
    /// The same as SIGTERM.
    Stop {
        /// Open connections get no time.
        at_once: bool,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Conns`].
    Conns(Vec<Connection>),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Tell`]: it was done, and this is how far the node is.
    Told(Progress),
    /// It was done.
    Done,
    /// It was not done, and why.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_lines_that_the_documentation_shows() {
        let lines = [
            (Request::Status, r#"{"request":"status"}"#),
            (Request::Conns { limit: 7 }, r#"{"request":"conns","limit":7}"#),
            (Request::OverrideLoad { permille: Some(950) }, r#"{"request":"override-load","permille":950}"#),
            (Request::OverrideLoad { permille: None }, r#"{"request":"override-load","permille":null}"#),
            (
                Request::Exclude { address: [192, 0, 2, 12].into(), excluded: true },
                r#"{"request":"exclude","address":"192.0.2.12","excluded":true}"#,
            ),
            (
                Request::Tell { node: NodeId(7), order: Order::Drain },
                r#"{"request":"tell","node":7,"order":"drain"}"#,
            ),
            (
                Request::Tell { node: NodeId(7), order: Order::Forget(NodeId(8)) },
                r#"{"request":"tell","node":7,"order":{"forget":8}}"#,
            ),
            (Request::Stop { at_once: false }, r#"{"request":"stop","at_once":false}"#),
        ];
        for (request, line) in lines {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
    }

    #[test]
    fn responses_name_what_they_hold() {
        assert_eq!(serde_json::to_string(&Response::Done).unwrap(), r#""done""#);
        assert_eq!(serde_json::to_string(&Response::Error("no".into())).unwrap(), r#"{"error":"no"}"#);
        assert_eq!(serde_json::to_string(&Response::Conns(vec![])).unwrap(), r#"{"conns":[]}"#);
    }
}
