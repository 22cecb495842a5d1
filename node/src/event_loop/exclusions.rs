//! What operators decide about addresses in DNS, and its copy on the disk: all nodes know it, and may stop together.
//!
//! Who counts more, a node that remembers or one that speaks, is `load-gossip`'s business: the later decision does.

use super::EventLoop;
use crate::clock;
use crate::control::protocol::Response;
use crate::kept_file::{Keeping, KeptFile, Subject};
use dpr_load_gossip::Gossip;
use dpr_model::Exclusion;
use std::future::pending;
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The memory of one node.
#[derive(Debug)]
pub(crate) struct ExclusionMemory {
    file: KeptFile,
    /// What the file has, or will have when [`Self::kept`] is over.
    written: Vec<Exclusion>,
    keeping: Option<Keeping>,
}

impl ExclusionMemory {
    /// Tells `gossip` what an earlier life with this control socket knew. A file that makes no sense is as good as none:
    /// a node that does not start helps nobody under attack.
    pub(crate) fn recall(control_socket: &Path, gossip: &mut Gossip) -> Self {
        let file = KeptFile::beside(control_socket, Subject::Exclusions);
        let written = match read(&file) {
            Ok(written) => written,
            Err(error) => {
                let path = file.path().display();
                tracing::error!(%path, error = %format_args!("{error:#}"), "exclusions from DNS are forgotten");
                vec![]
            }
        };
        for exclusion in &written {
            let known = gossip.remember(*exclusion);
            tracing::info!(address = %exclusion.address, excluded = exclusion.excluded, known, "an earlier decision about DNS");
        }
        Self { file, written, keeping: None }
    }

    /// Begins to write what is known now, if that is news and nothing else is being written.
    pub(super) fn note(&mut self, gossip: &Gossip) {
        if self.keeping.is_some() || gossip.exclusions().eq(&self.written) {
            return;
        }
        self.written = gossip.exclusions().copied().collect();
        let mut text =
            serde_json::to_vec_pretty(&self.written).expect("addresses and numbers can be written");
        text.push(b'\n');
        self.keeping = Some(self.file.keep(text));
    }

    /// Waits until the disk has what is being written; for ever if that is nothing.
    pub(super) async fn kept(&mut self) {
        let Some(keeping) = &mut self.keeping else { return pending().await };
        keeping.done().await;
        self.keeping = None;
    }
}

fn read(file: &KeptFile) -> anyhow::Result<Vec<Exclusion>> {
    let Some(bytes) = file.read()? else { return Ok(vec![]) };
    Ok(serde_json::from_slice(&bytes)?)
}

impl EventLoop {
    /// Takes an address out of DNS, or back: here at once, elsewhere with the report that goes out now.
    pub(super) fn exclude(&mut self, address: IpAddr, excluded: bool) -> Response {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        if let Err(error) = self.cluster.gossip.exclude(address, excluded, unix_ms) {
            return Response::Error(error.to_string());
        }
        tracing::warn!(%address, excluded, "an operator decided here which addresses DNS names");
        self.cluster.gossip.send_now(clock::now());
        self.publish_addresses();
        Response::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_load_gossip::{Config, EXCLUSIONS_MAX};
    use dpr_model::{Incarnation, NodeId, Timestamp};
    use std::net::{IpAddr, Ipv6Addr};

    fn gossip() -> Gossip {
        Gossip::new(Config::new(NodeId(1), Incarnation(1)), Timestamp::default())
    }

    #[tokio::test]
    async fn decisions_outlive_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let mut before = gossip();
        let mut memory = ExclusionMemory::recall(&socket, &mut before);
        for number in 0..EXCLUSIONS_MAX {
            let address = IpAddr::V6(Ipv6Addr::from(u128::MAX - number as u128));
            before.exclude(address, number % 2 == 0, 253_402_300_700_000).unwrap();
        }

        memory.note(&before);
        memory.kept().await;
        let mut after = gossip();
        ExclusionMemory::recall(&socket, &mut after);

        assert!(after.exclusions().eq(before.exclusions()));
        assert_eq!(after.exclusions().count(), EXCLUSIONS_MAX);
    }

    #[test]
    fn without_a_decision_there_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut gossip = gossip();

        let mut memory = ExclusionMemory::recall(&directory.path().join("control.sock"), &mut gossip);
        memory.note(&gossip);

        assert!(memory.keeping.is_none());
    }

    #[test]
    fn a_file_with_anything_else_in_it_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let late = br#"[{"address":"192.0.2.1","excluded":true,"decided_ms":18446744073709551615,"by":1}]"#;
        for content in [&b""[..], b"[{\"address\":7}]", b"\xff", late] {
            std::fs::write(socket.with_extension("exclusions"), content).unwrap();
            let mut gossip = gossip();

            ExclusionMemory::recall(&socket, &mut gossip);

            assert_eq!(gossip.exclusions().count(), 0, "{content:?}");
        }
    }
}
