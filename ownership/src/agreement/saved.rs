//! What a node has to know after a restart, lest it break its word.

use crate::encoding::MapError;
use crate::map::OwnershipMap;
use dpr_model::NodeId;
use dpr_wire::Fields;

const MAGIC: [u8; 4] = *b"DPRA";
const FORMAT: u8 = 1;

/// Election and map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) term: u64,
    pub(crate) vote: Option<NodeId>,
    pub(crate) map: OwnershipMap,
}

/// Why what was kept cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// It is no file of ours, or of another version.
    #[error("this is not what an earlier life of this node kept")]
    NotOurs,
    /// The map in it is damaged.
    #[error("the ownership map in it: {0}")]
    Map(#[from] MapError),
}

impl Saved {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        bytes.extend(self.term.to_be_bytes());
        bytes.push(u8::from(self.vote.is_some()));
        bytes.extend(self.vote.unwrap_or(NodeId(0)).0.to_be_bytes());
        bytes.extend(self.map.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SavedError> {
        let mut fields = Fields::new(bytes);
        let (term, vote) = read_election(&mut fields).ok_or(SavedError::NotOurs)?;
        Ok(Self { term, vote, map: OwnershipMap::from_bytes(fields.rest())? })
    }
}

fn read_election(fields: &mut Fields<'_>) -> Option<(u64, Option<NodeId>)> {
    if fields.array()? != MAGIC || fields.u8()? != FORMAT {
        return None;
    }
    let term = fields.u64()?;
    let (voted, vote) = (fields.u8()?, fields.u32()?);
    Some((term, (voted != 0).then_some(NodeId(vote))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::SlotCount;

    #[test]
    fn what_was_kept_comes_back_and_nothing_else_is_believed() {
        let map = OwnershipMap::genesis(SlotCount::MIN, &[NodeId(1), NodeId(2)]);
        let saved = Saved { term: 7, vote: Some(NodeId(2)), map };
        let bytes = saved.to_bytes();

        assert_eq!(Saved::from_bytes(&bytes), Ok(saved));
        assert_eq!(Saved::from_bytes(b"something else"), Err(SavedError::NotOurs));
        assert_eq!(Saved::from_bytes(&bytes[..30]), Err(SavedError::Map(MapError::Truncated)));
    }
}
