//! Whether the process has the host for itself or shares it with others that it cannot see.

use std::fs::read_link;
use std::ops::Range;

/// Inode numbers of the initial namespaces, `include/uapi/linux/nsfs.h` (`*_NS_INIT_INO`); the same on every boot.
const INITIAL: [(&str, u64); 3] = [("user", 0xEFFF_FFFD), ("pid", 0xEFFF_FFFC), ("cgroup", 0xEFFF_FFFB)];

/// That of the initial network namespace, since Linux 6.18.
const INITIAL_NETWORK: u64 = 0xEFFF_FFF9;

/// Before, it got one of the first numbers of those that are drawn (`PROC_DYNAMIC_FIRST`): it is made during boot.
const DRAWN_DURING_BOOT: Range<u64> = 0xF000_0000..0xF000_0100;

/// True in a container, a user namespace or a network namespace of its own: figures of the whole host are then not
/// this node's.
pub(super) fn is_confined() -> bool {
    let foreign =
        |(name, initial): &(&str, u64)| namespace("self", name).is_some_and(|inode| inode != *initial);
    let network = namespace("self", "net");
    INITIAL.iter().any(foreign) || network.is_some_and(|own| is_foreign_network(own, namespace("1", "net")))
}

/// Whether a network namespace is not the one of the host, which init lives in; not everybody may see where it does.
fn is_foreign_network(own: u64, of_init: Option<u64>) -> bool {
    match of_init {
        Some(of_init) => own != of_init,
        None => own != INITIAL_NETWORK && !DRAWN_DURING_BOOT.contains(&own),
    }
}

fn namespace(process: &str, name: &str) -> Option<u64> {
    inode(read_link(format!("/proc/{process}/ns/{name}")).ok()?.to_str()?)
}

/// The number in `net:[4026531840]`.
fn inode(link: &str) -> Option<u64> {
    link.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ones_own_is_recognised_with_and_without_a_look_at_init() {
        assert!(is_foreign_network(4_026_532_464, Some(4_026_531_840)));
        assert!(!is_foreign_network(4_026_531_840, Some(4_026_531_840)));
        assert!(is_foreign_network(4_026_532_464, None));
        assert!(!is_foreign_network(4_026_531_833, None));
        assert!(!is_foreign_network(4_026_531_840, None));
    }

    #[test]
    fn the_number_of_a_namespace_is_in_its_link() {
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(inode("net"), None);
        assert_eq!(namespace("self", "nothing"), None);
    }
}
