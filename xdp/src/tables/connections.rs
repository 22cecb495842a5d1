//! The tables of connections: of each, one map for either IP version.

use super::{of, take_any};
use crate::abi::{FlowEntry, FlowKey, FlowKeyV6, NamedFlow};
use crate::batch;
use crate::error::XdpError;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::{Ebpf, Pod};
use dpr_model::FlowKey as Flow;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

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

/// One table.
pub(crate) struct Table {
    names: [&'static str; 2],
    maps: [Map; 2],
}

impl Table {
    /// Takes its maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, connections: Connections) -> Result<Self, XdpError> {
        let names @ [v4, v6] = connections.names();
        Self::of(names, [take_any(ebpf, v4)?, take_any(ebpf, v6)?])
    }

    /// Opens its maps, which are pinned in a directory.
    pub(crate) fn open(directory: &Path, connections: Connections) -> Result<Self, XdpError> {
        let names @ [v4, v6] = connections.names();
        Self::of(names, [opened(directory, v4)?, opened(directory, v6)?])
    }

    /// Checks that keys and entries are as long as this build's.
    fn of(names: [&'static str; 2], maps: [Map; 2]) -> Result<Self, XdpError> {
        HashMap::<_, FlowKey, FlowEntry>::try_from(&maps[0]).map_err(of(names[0]))?;
        HashMap::<_, FlowKeyV6, FlowEntry>::try_from(&maps[1]).map_err(of(names[1]))?;
        Ok(Self { names, maps })
    }

    /// Some entries, and moves `cursor` behind them; at its start again when those were the last.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Result<Vec<(Flow, FlowEntry)>, XdpError> {
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

    pub(crate) fn get(&self, flow: &Flow) -> Result<Option<FlowEntry>, XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => get(&self.maps[0], &key).map_err(of(self.names[0])),
            NamedFlow::V6(key) => get(&self.maps[1], &key).map_err(of(self.names[1])),
        }
    }

    pub(crate) fn insert(&mut self, flow: &Flow, entry: &FlowEntry) -> Result<(), XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => insert(&mut self.maps[0], &key, entry).map_err(of(self.names[0])),
            NamedFlow::V6(key) => insert(&mut self.maps[1], &key, entry).map_err(of(self.names[1])),
        }
    }

    /// One that is not there is no error.
    pub(crate) fn remove(&mut self, flow: &Flow) -> Result<(), XdpError> {
        match NamedFlow::from(flow) {
            NamedFlow::V4(key) => remove(&mut self.maps[0], &key).map_err(of(self.names[0])),
            NamedFlow::V6(key) => remove(&mut self.maps[1], &key).map_err(of(self.names[1])),
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

fn flows<K>(entries: Vec<(K, FlowEntry)>, flow: impl Fn(&K) -> Option<Flow>) -> Vec<(Flow, FlowEntry)> {
    entries.into_iter().filter_map(|(key, entry)| Some((flow(&key)?, entry))).collect()
}

fn get<K: Pod>(map: &Map, key: &K) -> Result<Option<FlowEntry>, MapError> {
    match HashMap::<_, K, FlowEntry>::try_from(map)?.get(key, 0) {
        Ok(entry) => Ok(Some(entry)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn insert<K: Pod>(map: &mut Map, key: &K, entry: &FlowEntry) -> Result<(), MapError> {
    HashMap::<_, K, FlowEntry>::try_from(map)?.insert(key, entry, 0)
}

fn remove<K: Pod>(map: &mut Map, key: &K) -> Result<(), MapError> {
    match HashMap::<_, K, FlowEntry>::try_from(map)?.remove(key) {
        Err(MapError::KeyNotFound) => Ok(()),
        removed => removed,
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
