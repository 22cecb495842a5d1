//! Why a connection goes where it goes.

use crate::{FlowKey, MapVersion, NodeId, PartitionBy, Sharing};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Who decides about a connection, and what was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Which connection.
    #[serde(flatten)]
    pub flow: FlowKey,
    /// Who may own slots of its service address.
    pub sharing: Sharing,
    /// What of it decides about its slot.
    pub partition_by: PartitionBy,
    /// The ownership map that says so; `None` for an address that only its home may own.
    pub map: Option<MapVersion>,
    /// Its slot in that map.
    pub slot: Option<u16>,
    /// Who decides about it.
    pub owner: Option<NodeId>,
    /// Who holds copies of it, the likelier successor first.
    pub backups: Vec<NodeId>,
    /// Who decided before.
    pub previous_owner: Option<NodeId>,
    /// Its owner may act; otherwise the slot is changing hands.
    pub settled: bool,
    /// Who has it, by its owner's word.
    pub real_server: Option<NodeId>,
    /// What to make of all this.
    pub reason: String,
}
