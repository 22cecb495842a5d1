//! Maps of another build, or with other sizes, whose connections can be read all the same.
//!
//! A map keeps the layout and size that it was made with. Programs that need others get maps of their own, and these tell what
//! the earlier ones knew of connections, nodes and delivery addresses; everything else is written anew.

use crate::abi::{Address, Carried, Delivery, Node};
use crate::content::Content;
use crate::error::XdpError;
use crate::pins::Pins;
use crate::tables::{CARRIED, Connections, Cursor, Table, Tables, entries, nodes_in, of, opened};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use std::path::Path;

/// What an earlier daemon left in maps that cannot be gone on with. They may still be in use by its programs.
pub struct Left {
    content: Content,
    tables: Vec<Table>,
    pub(crate) carried: Table<Carried>,
}

impl Left {
    /// Opens the maps that were found in the directory of `pins`; `None` if there are none, or none that this build can read.
    ///
    /// # Errors
    /// They cannot be opened or read.
    pub fn open(pins: &Pins) -> Result<Option<Self>, XdpError> {
        let Some(directory) = pins.left()? else { return Ok(None) };
        let nodes: Array<MapData, Node> = typed(&directory, "nodes")?;
        let deliveries: HashMap<MapData, Address, Delivery> = typed(&directory, "deliveries")?;
        let content = Content {
            nodes: nodes_in(&nodes)?,
            deliveries: entries("deliveries", &deliveries)?,
            ..Content::default()
        };
        let table = |connections: Connections| Table::open(&directory, connections.names());
        let tables = Connections::ALL.into_iter().map(table).collect::<Result<_, _>>()?;
        let carried = Table::open(&directory, CARRIED)?;
        Ok(Some(Self { content, tables, carried }))
    }

    /// Nodes and delivery addresses, nothing else.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Copies every connection that is not over, and that `tables` do not have, as far as there is room; but none to addresses
    /// that others may own, which may have gone to and fro since. `now` in ticks of the monotonic clock. Returns how many there were, and how many found no room.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn copy_to(&self, tables: &mut Tables, now: u32) -> Result<(usize, usize), XdpError> {
        let (mut copied, mut refused) = (0, 0);
        for (connections, from) in Connections::ALL.into_iter().zip(&self.tables) {
            let mut cursor = Cursor::default();
            loop {
                let entries = from.next(&mut cursor)?;
                for (flow, entry) in
                    entries.iter().filter(|(_, entry)| entry.term == 0 && !entry.is_over(now))
                {
                    if tables.connection(connections, flow)?.is_some() {
                        continue;
                    }
                    match tables.insert(connections, flow, entry) {
                        Ok(()) => copied += 1,
                        Err(_) => refused += 1,
                    }
                }
                if cursor.is_at_start() {
                    break;
                }
            }
        }
        Ok((copied, refused))
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(directory: &Path, name: &'static str) -> Result<T, XdpError> {
    T::try_from(opened(directory, name)?).map_err(of(name))
}
