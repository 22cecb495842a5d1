//! Orders to nodes, by the program that operators use.

use crate::binary;
use dpr_lab::Node;
use dpr_model::status::Explanation;
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Output};

/// `dpr` with these arguments, asking a node.
pub fn order(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::path());
    command.args(arguments).arg("--socket").arg(node.control_socket());
    command
}

/// What comes of an order; fails if it does.
pub fn succeed(node: &Node, arguments: &[&str]) -> Output {
    let output = order(node, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// What a node says about a connection.
pub fn explain(node: &Node, client: SocketAddr, service: SocketAddr) -> Explanation {
    let output = succeed(node, &["explain", &client.to_string(), &service.to_string(), "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The last lines of an order with `--json`, one for each node.
pub fn progress(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
