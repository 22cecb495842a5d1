//! What is to happen to a frame, and every reason for which one is dropped.

use crate::{Encapsulation, HopBudget, Translation};
use core::net::IpAddr;

/// What a data plane is to do with one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not ours: the host's network stack has it untouched.
    Pass,
    /// To the local TCP stack.
    Deliver(Delivery),
    /// To another node through a tunnel.
    Forward(Forward),
    /// To another node on the same layer 2, as it came but for its MAC addresses and its hop limit, which becomes 1:
    /// whatever the other node knows, it cannot send the packet on.
    Direct {
        /// The other node's address, by which its MAC address is found; of either version.
        to: IpAddr,
    },
    /// To a real server with other ends.
    Nat(Nat),
    /// From a real server that was reached by [`Self::Nat`] back to the client, with the ends that the client knows.
    NatReply(Nat),
    /// From a local server back to its client.
    Reply(Reply),
    /// Too big for the way to its real server: tell the sender the MTU that fits (RFC 1191, RFC 4443).
    TooBig {
        /// Largest IP packet that fits, bytes.
        mtu: u16,
        /// Source of the answer, of the packet's version.
        from: IpAddr,
    },
    /// Answer an ARP request for an address that this node serves but does not hold.
    AnswerArp,
    /// Answer a neighbour solicitation for such an address.
    AnswerNeighbour,
    /// Answer an echo request, from the address that was asked.
    AnswerEcho,
    /// Nothing yet: whose packet it is, others are being asked. The sender's retransmission finds the answer.
    Ask,
    /// Nothing; counted under its reason.
    Drop(DropReason),
}

/// Delivery to the local TCP stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// What the destination becomes: the delivery address of the service address that the packet was sent to. `None`
    /// with alias delivery: the host has the service address itself.
    pub to: Option<IpAddr>,
    /// Bytes of outer header to remove first; 0 for a packet that came directly.
    pub decapsulate: u8,
}

/// Hand-over to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// How the packet is wrapped.
    pub encapsulation: Encapsulation,
    /// This node's address.
    pub from: IpAddr,
    /// The other node's address, of the same version.
    pub to: IpAddr,
    /// What the packet may still do after it arrives.
    pub hops: HopBudget,
    /// Bytes of outer header to remove first; 0 for a packet that came directly.
    pub decapsulate: u8,
    /// Fragment the packet before it is wrapped, into packets of at most so many bytes: it is too big for the tunnel and
    /// allows that (RFC 4459, section 3.3).
    pub fragment: Option<u16>,
}

/// Network address translation: the packet gets new ends and one hop less, and goes where its new destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nat {
    /// The new ends; those of what an ICMP error quotes follow from them.
    pub ends: Translation,
    /// Bytes of outer header to remove first; 0 for a packet that came directly.
    pub decapsulate: u8,
}

/// Reply of a local server: the source becomes the service address again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// The address that the client connected to.
    pub from: IpAddr,
    /// Where the packet goes.
    pub to: IpAddr,
    /// Upper bound for the MSS option of a SYN-ACK, bytes.
    pub mss_max: Option<u16>,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a frame was dropped: error type, counter label and log word in one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Counter label and log word.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Position in an array of counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before its headers do, or a length field lies.
    Truncated => "truncated",
    /// A header field has a value that its RFC forbids.
    Malformed => "malformed",
    /// The IPv4 header checksum is wrong.
    BadHeaderChecksum => "bad-header-checksum",
    /// Another node owns the slot.
    NotMine => "not-mine",
    /// This node owns the slot but its lease has run out.
    NoLease => "no-lease",
    /// The packet would have to be forwarded, and its hop budget is spent.
    HopsSpent => "hops-spent",
    /// A tunnel packet from an address that is no peer's.
    TunnelFromStranger => "tunnel-from-stranger",
    /// A tunnel packet for something that is no service of the cluster.
    TunnelUnknownService => "tunnel-unknown-service",
    /// A fragment of a service packet, whose flow is not known or cannot take fragments.
    Fragment => "fragment",
    /// A reply from a delivery address that belongs to no service address.
    UnknownDelivery => "unknown-delivery",
    /// A packet for a port of this node's NAT range from somebody who was not sent anything from there.
    UnknownNatPort => "unknown-nat-port",
    /// Every port from which a packet could be translated is another flow's.
    NoNatPort => "no-nat-port",
    /// No route to where the packet should go.
    NoRoute => "no-route",
    /// The next hop's MAC address is not known, and the kernel does not find it.
    NoNeighbour => "no-neighbour",
    /// The packet does not fit and says that it must not be fragmented.
    TooBig => "too-big",
    /// The packet's time to live ran out on the way to its real server.
    TtlExpired => "ttl-expired",
    /// Congestion was signalled to a transport that does not know of it (RFC 6040, section 4.2).
    EcnNotCapable => "ecn-not-capable",
    /// An address of one IP version would have to go into a packet of the other.
    VersionMismatch => "version-mismatch",
    /// The network device refused the frame.
    TransmitFailed => "transmit-failed",
    /// Frames came in faster than the data plane took them.
    QueueFull => "queue-full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_count_in_order_and_have_labels_of_their_own() {
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert_eq!(DropReason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
