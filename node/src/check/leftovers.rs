//! What a killed daemon left on the host; a daemon that starts removes it, or takes it over.

use super::finding::Finding;
use crate::config::Config;
use crate::dataplane::traces::{LINK, NFT_TABLE, RULE_PRIORITY};
use crate::dataplane::xdp::of_this_namespace;
use dpr_host::Netlink;
use dpr_host::nft::Nftables;

/// Looks for devices, rules and tables with the daemon's names while there is no daemon.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: String, mend: &str| {
        let problem = format!("{what} is left from a daemon that was killed");
        findings.push(Finding::warning(
            "leftovers",
            problem,
            format!("dpr run takes care of it, or: {mend}"),
        ));
    };
    if let Ok(mut netlink) = Netlink::open() {
        if matches!(netlink.link_by_name(LINK), Ok(Some(_))) {
            add(format!("device {LINK}"), &format!("ip link delete {LINK}"));
        }
        let rules = netlink.rules().unwrap_or_default();
        for rule in rules.iter().filter(|rule| rule.priority == RULE_PRIORITY) {
            let from = rule.from;
            // Without the option, `ip` deletes rules of IPv4 only.
            let ip = if from.network().address().is_ipv6() { "ip -6" } else { "ip" };
            add(
                format!("policy rule {RULE_PRIORITY} for packets from {from}"),
                &format!("{ip} rule delete priority {RULE_PRIORITY} from {from}"),
            );
        }
    }
    if let Ok(pinned) = of_this_namespace(&config.pin_directory)
        && pinned.exists()
    {
        let pinned = pinned.display();
        add(format!("a packet path in the kernel ({pinned})"), &format!("rm -r {pinned}"));
    }
    // Only with CAP_NET_ADMIN; without it the missing right is reported already.
    if let Ok(true) = Nftables::open().and_then(|mut nftables| nftables.has_table(NFT_TABLE)) {
        add(format!("nftables table {NFT_TABLE}"), &format!("nft delete table netdev {NFT_TABLE}"));
    }
    findings
}
