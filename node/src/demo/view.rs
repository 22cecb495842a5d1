//! What can be seen while the demo runs: a table that is redrawn on a terminal, a line per second elsewhere.

use super::NodeRecord;
use dpr_lab::http_load::Tally;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// The live view; it goes to standard error, so that standard output holds the result only.
pub(super) struct View {
    terminal: bool,
    /// Lines of the table that is on the screen now.
    drawn: usize,
    served_before: BTreeMap<String, u64>,
}

impl View {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, drawn: 0, served_before: BTreeMap::new() }
    }

    /// Shows the cluster as it is now; to be called once a second.
    pub(super) fn draw(&mut self, elapsed: Duration, nodes: &[NodeRecord], tally: &Tally) {
        let mut text = self.erase();
        if self.terminal {
            let table = self.table(elapsed, nodes, tally);
            self.drawn = table.lines().count();
            text.push_str(&table);
        } else {
            text.push_str(&self.line(elapsed, nodes, tally));
        }
        self.served_before.clone_from(&tally.served_by_node);
        put(&text);
    }

    /// Says something that stays above the table.
    pub(super) fn say(&mut self, sentence: &str) {
        let text = self.erase();
        self.drawn = 0;
        put(&format!("{text}{sentence}\n"));
    }

    /// The escape sequence that removes the table from the screen (ECMA-48: cursor up, erase below).
    fn erase(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.drawn) }
    }

    fn table(&self, elapsed: Duration, nodes: &[NodeRecord], tally: &Tally) -> String {
        let mut text = format!(
            "{:3} s   node   load   requests/s   served   handed on   taken over\n",
            elapsed.as_secs()
        );
        for node in nodes {
            let load = if node.killed { "dead".to_owned() } else { node.status.node.load.to_string() };
            let counters = &node.status.counters;
            let _ = writeln!(
                text,
                "        {:5} {:>5} {:>12} {:>8} {:>11} {:>12}",
                node.name,
                load,
                self.rate(node, tally),
                served(node, tally),
                counters.connections_forwarded,
                counters.connections_received,
            );
        }
        let _ = writeln!(
            text,
            "        {} requests, {} failed ({} excused)",
            tally.requests, tally.failures, tally.excused
        );
        text
    }

    fn line(&self, elapsed: Duration, nodes: &[NodeRecord], tally: &Tally) -> String {
        let mut text = format!("{:3} s", elapsed.as_secs());
        for node in nodes {
            let _ = if node.killed {
                write!(text, " | {} dead", node.name)
            } else {
                write!(text, " | {} {} {}/s", node.name, node.status.node.load, self.rate(node, tally))
            };
        }
        let _ = writeln!(text, " | failed {} ({} excused)", tally.failures, tally.excused);
        text
    }

    fn rate(&self, node: &NodeRecord, tally: &Tally) -> u64 {
        served(node, tally) - self.served_before.get(&node.name).copied().unwrap_or(0)
    }
}

fn served(node: &NodeRecord, tally: &Tally) -> u64 {
    tally.served_by_node.get(&node.name).copied().unwrap_or(0)
}

/// A standard error that is gone is no reason to stop.
fn put(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
