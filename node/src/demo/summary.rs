//! What the demo ends with: a table for people or one JSON object for programs.

use super::{Death, NodeRecord};
use anyhow::Context as _;
use dpr_lab::http_load::Tally;
use dpr_model::status::Counters;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The demo's result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    duration_s: u64,
    requests: u64,
    failures: u64,
    /// Failures that no balancer could have prevented; see [`dpr_lab::http_load::RequestRecord::is_excused_by`].
    failures_excused: u64,
    failures_by_reason: BTreeMap<&'static str, u64>,
    /// From the link's cut until node 1 was seen to take the node for dead and to give it nothing any more; upper
    /// bound by one look, about 10 ms. Nothing if that never came.
    detection_ms: Option<u64>,
    /// Packets whose headers a node changed, all nodes together.
    packets_rewritten: u64,
    nodes: Vec<NodeSummary>,
}

#[derive(Clone, Debug, Serialize)]
struct NodeSummary {
    name: String,
    /// Requests that clients got answered by it.
    served: u64,
    /// Connections that it gave to others.
    forwarded: u64,
    /// Connections that others gave to it.
    received: u64,
    packets_rewritten: u64,
    killed: bool,
}

impl Summary {
    pub(super) fn new(duration: Duration, tally: &Tally, death: &Death, nodes: &[NodeRecord]) -> Self {
        let nodes: Vec<NodeSummary> = nodes.iter().map(|node| NodeSummary::new(node, tally)).collect();
        let detection = death.noticed.map(|noticed| noticed.duration_since(death.kill.at));
        Self {
            duration_s: duration.as_secs(),
            requests: tally.requests,
            failures: tally.failures,
            failures_excused: tally.excused,
            failures_by_reason: tally.failures_by_reason.clone(),
            detection_ms: detection.and_then(|time| u64::try_from(time.as_millis()).ok()),
            packets_rewritten: nodes.iter().map(|node| node.packets_rewritten).sum(),
            nodes,
        }
    }

    /// Whether `dpr` kept its promises.
    pub(super) fn is_good(&self) -> bool {
        self.requests > 0 && self.failures == self.failures_excused && self.detection_ms.is_some()
    }

    /// Prints the result to standard output.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self).context("writing the result as JSON")?);
        } else {
            print!("{self}");
        }
        Ok(())
    }
}

impl NodeSummary {
    fn new(node: &NodeRecord, tally: &Tally) -> Self {
        let counters = &node.status.counters;
        Self {
            name: node.name.clone(),
            served: tally.served_by_node.get(&node.name).copied().unwrap_or(0),
            forwarded: counters.connections_forwarded,
            received: counters.connections_received,
            packets_rewritten: rewritten(counters),
            killed: node.killed,
        }
    }
}

fn rewritten(counters: &Counters) -> u64 {
    counters.packets_forwarded
        + counters.packets_delivered
        + counters.packets_received
        + counters.packets_replied
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<16} {:>9} {:>10} {:>11} {:>18}",
            "node", "served", "handed on", "taken over", "packets rewritten"
        )?;
        for node in &self.nodes {
            let name = if node.killed { format!("{} (killed)", node.name) } else { node.name.clone() };
            writeln!(
                f,
                "{name:<16} {:>9} {:>10} {:>11} {:>18}",
                node.served, node.forwarded, node.received, node.packets_rewritten
            )?;
        }
        writeln!(f)?;
        writeln!(f, "requests                          {:>9}", self.requests)?;
        writeln!(f, "failures                          {:>9}", self.failures)?;
        for (reason, count) in &self.failures_by_reason {
            writeln!(f, "  {reason:<31} {count:>9}")?;
        }
        writeln!(f, "  excused: their server was killed{:>9}", self.failures_excused)?;
        match self.detection_ms {
            Some(ms) => writeln!(f, "the dead node got nothing after   {ms:>9} ms"),
            None => writeln!(f, "node 1 did not notice the death"),
        }
    }
}
