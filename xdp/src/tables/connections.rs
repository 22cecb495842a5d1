//! The tables of connections, and others with flows for keys: of each, one map for either IP version.

use super::{of, take_any};
use crate::abi::{FlowEntry, FlowKey, FlowKeyV6, NamedFlow};
use crate::batch;
use crate::error::XdpError;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};
use dpr_model::FlowKey as Flow;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::{fs, io};

/// Update an existing element (`linux/bpf.h`).
const BPF_EXIST: u64 = 2;

/// Which of the tables of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Connections {
    /// Beyond the handshake.
    Flows,
    /// Not yet.
    HalfOpen,
    /// Flows of datagrams.
    Datagrams,
}

impl Connections {
    /// Every table.
    pub const ALL: [Self; 3] = [Self::Flows, Self::HalfOpen, Self::Datagrams];

    /// Names of its maps: for IPv4, and for IPv6.
    pub const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Flows => ["flows", "flows_v6"],
            Self::HalfOpen => ["half_open", "half_open_v6"],
            Self::Datagrams => ["datagrams", "datagrams_v6"],
        }
    }
}

/// Where a walk through a table stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Which of its maps, by position.
    map: usize,
    bucket: batch::Cursor,
}

impl Cursor {
    /// True before the first entry, and again behind the last one.
    pub(crate) fn is_at_start(self) -> bool {
        self.map == 0 && self.bucket.is_at_start()
    }
}

/// One table: of each IP version a map from flows to what is known about them.
pub(crate) struct Table<E = FlowEntry> {
    names: [&'static str; 2],
    maps: [Map; 2],
    entry: PhantomData<E>,
}

impl<E: Pod + Default> Table<E> {
    /// Takes its maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, names: [&'static str; 2]) -> Result<Self, XdpError> {
        let [v4, v6] = names;
        Self::of(names, [take_any(ebpf, v4)?, take_any(ebpf, v6)?])
    }

    /// Opens its maps, which are pinned in a directory.
    pub(crate) fn open(directory: &Path, names: [&'static str; 2]) -> Result<Self, XdpError> {
        let [v4, v6] = names;
        Self::of(names, [opened(directory, v4)?, opened(directory, v6)?])
    }

    /// Checks that keys and entries are as long as this build's.
    fn of(names: [&'static str; 2], maps: [Map; 2]) -> Result<Self, XdpError> {
        HashMap::<_, FlowKey, E>::try_from(&maps[0]).map_err(of(names[0]))?;
        HashMap::<_, FlowKeyV6, E>::try_from(&maps[1]).map_err(of(names[1]))?;
        Ok(Self { names, maps, entry: PhantomData })
    }

    /// Some entries, and moves `cursor` behind them; at its start again when those were the last.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Result<Vec<(Flow, E)>, XdpError> {
        let fd = fd_of(&self.maps[cursor.map])?;
        let entries = match cursor.map {
            0 => flows(batch::next(fd, &mut cursor.bucket)?, FlowKey::flow),
            _ => flows(batch::next(fd, &mut cursor.bucket)?, FlowKeyV6::flow),
        };
        if cursor.bucket.is_at_start() {
            cursor.map = (cursor.map + 1) % self.maps.len();
        }
        Ok(entries)
    }

    /// Entries in no particular order, `limit` at most.
    pub(crate) fn entries(&self, limit: usize) -> Result<Vec<(Flow, E)>, XdpError> {
        let mut cursor = Cursor::default();
        let mut entries = Vec::new();
        while entries.len() < limit {
            entries.extend(self.next(&mut cursor)?);
            if cursor.is_at_start() {
                break;
            }
        }
        entries.truncate(limit);
        Ok(entries)
    }

    pub(crate) fn get(&self, flow: &Flow) -> Result<Option<E>, XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => get(&self.maps[0], &key).map_err(of(self.names[0])),
            NamedFlow::V6(key) => get(&self.maps[1], &key).map_err(of(self.names[1])),
        }
    }

    pub(crate) fn insert(&mut self, flow: &Flow, entry: &E) -> Result<(), XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => insert(&mut self.maps[0], &key, entry).map_err(of(self.names[0])),
            NamedFlow::V6(key) => insert(&mut self.maps[1], &key, entry).map_err(of(self.names[1])),
        }
    }

    /// Writes an entry anew that is there; one that is not there is no error, and stays away.
    pub(crate) fn replace(&mut self, flow: &Flow, entry: &E) -> Result<(), XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => replace(&mut self.maps[0], &key, entry).map_err(of(self.names[0])),
            NamedFlow::V6(key) => replace(&mut self.maps[1], &key, entry).map_err(of(self.names[1])),
        }
    }

    /// One that is not there is no error.
    pub(crate) fn remove(&mut self, flow: &Flow) -> Result<(), XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => remove::<_, E>(&mut self.maps[0], &key).map_err(of(self.names[0])),
            NamedFlow::V6(key) => remove::<_, E>(&mut self.maps[1], &key).map_err(of(self.names[1])),
        }
    }

    /// Most entries of each version.
    pub(crate) fn max_entries(&self) -> Result<u32, XdpError> {
        Ok(data_of(&self.maps[0])?.info().map_err(of(self.names[0]))?.max_entries())
    }

    /// Memory that the kernel has set aside for the maps of either version, bytes; `None` where it does not say.
    pub(crate) fn memory_bytes(&self) -> Result<[Option<u64>; 2], XdpError> {
        let [v4, v6] = &self.maps;
        Ok([memory_bytes(fd_of(v4)?)?, memory_bytes(fd_of(v6)?)?])
    }
}

fn flows<K, E>(entries: Vec<(K, E)>, flow: impl Fn(&K) -> Option<Flow>) -> Vec<(Flow, E)> {
    entries.into_iter().filter_map(|(key, entry)| Some((flow(&key)?, entry))).collect()
}

fn get<K: Pod, E: Pod>(map: &Map, key: &K) -> Result<Option<E>, MapError> {
    match HashMap::<_, K, E>::try_from(map)?.get(key, 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn insert<K: Pod, E: Pod>(map: &mut Map, key: &K, entry: &E) -> Result<(), MapError> {
    HashMap::<_, K, E>::try_from(map)?.insert(key, entry, 0)
}

fn replace<K: Pod, E: Pod>(map: &mut Map, key: &K, entry: &E) -> Result<(), MapError> {
    if_there(HashMap::<_, K, E>::try_from(map)?.insert(key, entry, BPF_EXIST))
}

fn remove<K: Pod, E: Pod>(map: &mut Map, key: &K) -> Result<(), MapError> {
    if_there(HashMap::<_, K, E>::try_from(map)?.remove(key))
}

/// Nothing becomes of what is not there.
fn if_there(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn data_of(map: &Map) -> Result<&MapData, XdpError> {
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) => Ok(data),
        _ => Err(XdpError::Missing("table of connections")),
    }
}

fn fd_of(map: &Map) -> Result<BorrowedFd<'_>, XdpError> {
    Ok(data_of(map)?.fd().as_fd())
}

fn memory_bytes(map: BorrowedFd<'_>) -> Result<Option<u64>, XdpError> {
    let info =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).map_err(XdpError::Listing)?;
    let memory = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(memory.and_then(|bytes| bytes.trim().parse().ok()).filter(|bytes| *bytes > 0))
}

pub(crate) fn opened(directory: &Path, name: &'static str) -> Result<Map, XdpError> {
    MapData::from_pin(directory.join(name)).and_then(Map::from_map_data).map_err(of(name))
}
