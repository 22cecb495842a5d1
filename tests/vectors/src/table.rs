//! Tables as text: clusters and vectors by name.
//!
//! ```text
//! cluster hot
//!   node a 192.0.2.10 load=900
//! vector a SYN goes to the lighter node
//!   cluster hot
//!   before ip 198.51.100.7 > 203.0.113.10 / tcp 999 > 80 syn
//!   in ip 198.51.100.7 > 203.0.113.10 / tcp 1000 > 80 syn
//!   verdict forward ipip 192.0.2.10 > 192.0.2.11 hops=0
//!   out route 192.0.2.11: ip …
//! ```
//!
//! `before` (a frame), `wait` (seconds), `tell` (a line of a cluster that changes it) and `socket` (an open one) come before
//! `in`, or `reply` for what the local stack sent. Lines that begin with `#` are for people.

use crate::cluster::Cluster;
use std::collections::BTreeMap;

/// Something that happens before the frame in question.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame comes in.
    Before(String),
    /// Seconds pass.
    Wait(u64),
    /// Something of the cluster changes, as a line of it says.
    Tell(String),
    /// The local stack has this connection: protocol, own socket, the client's.
    Socket(String),
}

/// One frame, what was before, and what has to become of it.
#[derive(Clone, Debug, Default)]
pub struct Vector {
    /// A sentence.
    pub name: String,
    /// Name of its cluster.
    pub cluster: String,
    /// What happens first.
    pub steps: Vec<Step>,
    /// The frame, as a line of text.
    pub frame: String,
    /// It is the local stack's, on its way to a client.
    pub is_reply: bool,
    /// What the director has to say.
    pub verdict: String,
    /// What has to leave.
    pub out: Vec<String>,
    /// Line of `frame` in the table, counted from 0.
    pub(crate) frame_line: usize,
}

/// A file of clusters and vectors.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// By name.
    pub clusters: BTreeMap<String, Cluster>,
    /// In order.
    pub vectors: Vec<Vector>,
    lines: Vec<String>,
}

impl Table {
    /// Reads a table; what stands in `self` already stays known.
    ///
    /// # Panics
    /// With the line, when it is not of this notation.
    pub fn parse(text: &str) -> Self {
        let mut table = Self { lines: text.lines().map(str::to_owned).collect(), ..Self::default() };
        let mut cluster = None;
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (word, rest) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
            let is_inner = line.starts_with(' ');
            match (is_inner, word, &mut cluster) {
                (false, "cluster", _) => {
                    let (name, like) = rest.split_once(" like ").unwrap_or((rest, ""));
                    let begun = table.clusters.get(like).cloned().unwrap_or_default();
                    assert!(
                        like.is_empty() || table.clusters.contains_key(like),
                        "line {}: {line}",
                        number + 1
                    );
                    table.clusters.insert(name.to_owned(), begun);
                    cluster = Some(name.to_owned());
                }
                (false, "vector", _) => {
                    cluster = None;
                    table.vectors.push(Vector { name: rest.to_owned(), ..Vector::default() });
                }
                (true, _, Some(name)) => table.clusters.get_mut(name).unwrap().say(trimmed),
                (true, _, None) => {
                    let vector = table.vectors.last_mut().expect("a vector has begun");
                    vector.say(word, rest, number);
                }
                (false, ..) => panic!("line {}: {line}", number + 1),
            }
        }
        table
    }

    /// The text with other verdicts and frames out, one for each vector.
    pub fn with_outcomes(&self, outcomes: &[(String, Vec<String>)]) -> String {
        let mut text = String::new();
        let is_outcome =
            |line: &str| ["verdict ", "out "].iter().any(|word| line.trim_start().starts_with(word));
        for (number, line) in self.lines.iter().enumerate().filter(|(_, line)| !is_outcome(line)) {
            text += &format!("{line}\n");
            let at = self.vectors.iter().position(|vector| vector.frame_line == number);
            if let Some((verdict, out)) = at.filter(|_| number > 0).map(|at| &outcomes[at]) {
                text += &format!("  verdict {verdict}\n");
                out.iter().for_each(|out| text += &format!("  out {out}\n"));
            }
        }
        text
    }
}

impl Vector {
    fn say(&mut self, word: &str, rest: &str, number: usize) {
        let rest = rest.to_owned();
        match word {
            "cluster" => self.cluster = rest,
            "before" => self.steps.push(Step::Before(rest)),
            "wait" => self.steps.push(Step::Wait(rest.parse().unwrap())),
            "tell" => self.steps.push(Step::Tell(rest)),
            "socket" => self.steps.push(Step::Socket(rest)),
            "in" | "reply" => (self.frame, self.is_reply, self.frame_line) = (rest, word == "reply", number),
            "verdict" => self.verdict = rest,
            "out" => self.out.push(rest),
            _ => panic!("line {}: {word}", number + 1),
        }
    }
}
