//! What can be done to a cluster.

use crate::names::Host;
use dpr_model::{LoadPermille, NodeId};
use std::time::Duration;

/// One fault, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The whole node stands still, its TCP stack included; what arrives waits, up to a limit.
    Pause(NodeId),
    /// It goes on, and finds what has arrived meanwhile.
    Resume(NodeId),
    /// SIGKILL of the daemon. The kernel has its packets again; servers and their sockets go on.
    KillDaemon(NodeId),
    /// The daemon starts in a new life.
    StartDaemon(NodeId),
    /// Link cut, then every process killed.
    KillNode(NodeId),
    /// The node boots, daemon included.
    StartNode(NodeId),
    /// Nothing arrives any more that the first sends to the second.
    Cut(Host, Host),
    /// The end of a cut.
    Mend(Host, Host),
    /// Nodes of different groups do not hear each other; all clients reach everybody, the witness the first group.
    Partition(Vec<Vec<NodeId>>),
    /// All cuts and partitions are over.
    Heal,
    /// The node's monotonic clock jumps ahead, as that of a virtual machine does that was suspended.
    StepClock(NodeId, Duration),
    /// The node's wall clock is set back; its daemon learns of it when it starts.
    SetBackWallClock(NodeId, Duration),
    /// So many SYNs of nobody for the node's service address.
    Flood(NodeId, u32),
    /// The node gives up what it owns and gets nothing new; or it is as before.
    Drain(NodeId, bool),
    /// An operator has the address of the first owned by the second as a whole, or by whom it was before. Whoever coordinates
    /// hears of it; without a coordinator nobody does.
    TakeOver(NodeId, Option<NodeId>),
    /// `dpr stop`: the node has others own what it owns, and then its daemon ends.
    Stop(NodeId),
    /// An operator has all nodes give up one that is dead, and leaves it switched off for good.
    Forget(NodeId),
    /// Its data plane gets no processor for a while, again and again: it looks at packets so long after they came in.
    Late(NodeId, Duration),
    /// Clients do not reach the node any more, nor it them, and it knows; or all that is over.
    CutOff(NodeId, bool),
    /// The node reports this load, whatever it has to do; `None` ends it.
    ReportLoad(NodeId, Option<LoadPermille>),
}

impl Fault {
    /// True for what keeps nodes from answering each other, or ends that.
    pub(crate) fn parts_nodes(&self) -> bool {
        match self {
            Self::Pause(_)
            | Self::Resume(_)
            | Self::Cut(..)
            | Self::Mend(..)
            | Self::Partition(_)
            | Self::Heal => true,
            Self::KillDaemon(_)
            | Self::StartDaemon(_)
            | Self::KillNode(_)
            | Self::StartNode(_)
            | Self::StepClock(..)
            | Self::SetBackWallClock(..)
            | Self::Flood(..)
            | Self::Drain(..)
            | Self::TakeOver(..)
            | Self::Stop(_)
            | Self::Forget(_)
            | Self::Late(..)
            | Self::CutOff(..)
            | Self::ReportLoad(..) => false,
        }
    }
}
