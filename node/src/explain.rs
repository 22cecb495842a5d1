//! `dpr explain`: why a connection goes where it goes.

use crate::cli::ExplainArgs;
use crate::control::client::ask;
use crate::control::protocol::{Request, Response};
use anyhow::bail;
use dpr_model::status::Explanation;
use dpr_model::{ClientSocket, FlowKey, MapVersion, NodeId, ServiceSocket, Sharing};

/// Asks the daemon.
///
/// # Errors
/// No daemon is there, or nobody has such a service.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let flow = FlowKey {
        protocol: args.protocol.into(),
        client: ClientSocket { address: args.client.ip(), port: args.client.port() },
        service: ServiceSocket { address: args.service.ip(), port: args.service.port() },
    };
    let Response::Explanation(explanation) = ask(&args.socket.socket, &Request::Explain { flow })? else {
        bail!(crate::UNEXPECTED)
    };
    match args.json {
        true => crate::print(&format!("{}\n", serde_json::to_string_pretty(&explanation)?)),
        false => crate::print(&text_of(&explanation)),
    }
}

fn text_of(explained: &Explanation) -> String {
    let node = |node: Option<NodeId>| node.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
    let backups: Vec<String> = explained.backups.iter().map(ToString::to_string).collect();
    let sharing = match explained.sharing {
        Sharing::Home => "its home only".to_owned(),
        Sharing::Takeover => "its home, or others while that is dead".to_owned(),
        Sharing::Shared(ingress) => format!("all nodes, by slot ({})", ingress.label()),
    };
    let mut text = format!("connection   {}\nowned by     {sharing}\n", explained.flow);
    if let (Some(MapVersion { term, epoch, .. }), Some(slot)) = (explained.map, explained.slot) {
        let by = explained.partition_by.label();
        text += &format!("slot         {slot} by {by}, map {term}.{epoch}\n");
    }
    text += &format!("owner        {}\n", node(explained.owner));
    if explained.map.is_some() {
        text += &format!(
            "backups      {}\n",
            if backups.is_empty() { "nobody".to_owned() } else { backups.join(", ") }
        );
        text += &format!("before       {}\n", node(explained.previous_owner));
    }
    text + &format!("real server  {}\nreason       {}\n", node(explained.real_server), explained.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_model::{Ingress, PartitionBy, Protocol};

    #[test]
    fn an_explanation_names_slot_owners_and_reason() {
        let flow = FlowKey {
            protocol: Protocol::Tcp,
            client: ClientSocket { address: [198, 51, 100, 7].into(), port: 40_000 },
            service: ServiceSocket { address: [192, 0, 2, 99].into(), port: 80 },
        };
        let explanation = Explanation {
            flow,
            sharing: Sharing::Shared(Ingress::ArpOwner),
            partition_by: PartitionBy::SourceAddressAndPort,
            map: Some(MapVersion { term: 3, epoch: 2, coordinator: 1 }),
            slot: Some(77),
            owner: Some(NodeId(1)),
            backups: vec![NodeId(2), NodeId(3)],
            previous_owner: None,
            settled: true,
            real_server: Some(NodeId(2)),
            reason: "its owner has given it to another node".to_owned(),
        };

        assert_eq!(
            text_of(&explanation),
            format!(
                "connection   {flow}\n\
                 owned by     all nodes, by slot (arp-owner)\n\
                 slot         77 by source-address-and-port, map 3.2\n\
                 owner        n00000001\n\
                 backups      n00000002, n00000003\n\
                 before       nobody\n\
                 real server  n00000002\n\
                 reason       its owner has given it to another node\n"
            )
        );
    }
}
