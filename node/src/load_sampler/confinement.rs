//! Whether the process has the host for itself or shares it with others that it cannot see.

use std::fs::read_link;

/// Inode numbers of the initial namespaces, `include/uapi/linux/nsfs.h` (`*_NS_INIT_INO`); the same on every boot.
const INITIAL: [(&str, u64); 3] = [("user", 0xEFFF_FFFD), ("pid", 0xEFFF_FFFC), ("cgroup", 0xEFFF_FFFB)];

/// True in a container, a user namespace or a network namespace of its own: figures of the whole host are then not
/// this node's.
pub(super) fn is_confined() -> bool {
    let foreign = |(name, initial): &(&str, u64)| namespace("self", name).is_some_and(|inode| inode != *initial);
    // The initial network namespace has no fixed number on older kernels, but init lives in it.
    let network = (namespace("self", "net"), namespace("1", "net"));
    INITIAL.iter().any(foreign) || matches!(network, (Some(own), Some(init)) if own != init)
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
    fn the_number_of_a_namespace_is_in_its_link() {
        assert_eq!(inode("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(inode("net"), None);
        assert_eq!(namespace("self", "nothing"), None);
    }
}
