//! Who owns what, for people.

use super::{columns, printable};
use dpr_model::status::{AddressStatus, OwnershipStatus, Status};
use dpr_model::{MapVersion, NodeId};
use std::fmt::Write as _;

/// The map, this node's right, and one line for each address.
pub(super) fn show(owned: &OwnershipStatus, status: &Status) -> String {
    let MapVersion { term, epoch, .. } = owned.map;
    let coordinator = owned.coordinator.map_or_else(|| "nobody".to_owned(), |node| name(status, node));
    let right = match owned.promised_ms {
        Some(left) => format!("may act for {left} ms"),
        None => "may not act".to_owned(),
    };
    let mut text = format!(
        "ownership map {term}.{epoch}{}, term {}, coordinator {coordinator}, quorum {}, {right}{}\n",
        if owned.settled { "" } else { " (not settled)" },
        owned.term,
        printable(&owned.quorum),
        if owned.unsaved { ", waits for the disk" } else { "" },
    );
    let voters: Vec<String> = owned.voters.iter().map(|voter| name(status, *voter)).collect();
    let _ = writeln!(text, "voters    {}", voters.join(", "));
    if owned.cut_off {
        text += "cut off   no host of ownership.ping answers: this node owns nothing while clients reach another one\n";
    }
    let answers = owned.answered_ms.iter().map(|(host, ago)| format!("{host} {ago} ms ago"));
    let answers: Vec<String> = answers.collect();
    if !answers.is_empty() {
        let _ = writeln!(text, "answered  {}", answers.join(", "));
    }
    let mut rows = vec![["ADDRESS", "HOME", "SLOTS OWNED"].map(str::to_owned).to_vec()];
    rows.extend(owned.addresses.iter().map(|address| {
        let home = address.home.map_or_else(|| "shared".to_owned(), |home| name(status, home));
        let lent = if address.lent { " (lent)" } else { "" };
        vec![address.address.to_string(), format!("{home}{lent}"), slots(address, status)]
    }));
    let _ = write!(text, "\n{}", columns(&rows));
    text
}

fn slots(address: &AddressStatus, status: &Status) -> String {
    let owners = address.slots.iter().map(|(node, slots)| format!("{} {slots}", name(status, *node)));
    let owners = owners.collect::<Vec<_>>().join(", ");
    let owners = if owners.is_empty() { "nobody".to_owned() } else { owners };
    match address.heir {
        Some(heir) => format!("{owners}; soon {}", name(status, heir)),
        None => owners,
    }
}

/// A node's name if it is known, else its id.
fn name(status: &Status, node: NodeId) -> String {
    let known = std::iter::once(&status.node).chain(status.peers.iter().map(|peer| &peer.node));
    known
        .into_iter()
        .find(|known| known.id == node)
        .map_or_else(|| node.to_string(), |known| printable(&known.name))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn ownership_shows_map_right_and_slots_by_address() {
        let address = |last: u8, home, slots: &[(u32, u32)]| AddressStatus {
            address: [192, 0, 2, last].into(),
            home,
            slots: slots.iter().map(|(node, slots)| (NodeId(*node), *slots)).collect(),
            lent: last == 13,
            heir: (last == 11).then_some(NodeId(9)),
        };
        let owned = OwnershipStatus {
            quorum: "majority".to_owned(),
            term: 4,
            coordinator: Some(NodeId(1)),
            map: MapVersion { term: 3, epoch: 7, coordinator: 1 },
            settled: false,
            promised_ms: Some(420),
            voters: vec![NodeId(1), NodeId(9)],
            addresses: vec![
                address(11, Some(NodeId(1)), &[(1, 4096)]),
                address(12, Some(NodeId(9)), &[(1, 96), (2, 4000)]),
                address(13, None, &[]),
            ],
            ..OwnershipStatus::default()
        };

        let text = show(&owned, &example());

        assert_eq!(
            text,
            "ownership map 3.7 (not settled), term 4, coordinator web1, quorum majority, may act for 420 ms\n\
             voters    web1, n00000009\n\
             \n\
             ADDRESS     HOME           SLOTS OWNED\n\
             192.0.2.11  web1           web1 4096; soon n00000009\n\
             192.0.2.12  n00000009      web1 96, web2?[2J 4000\n\
             192.0.2.13  shared (lent)  nobody\n"
        );
    }
}
