//! What a packet costs in the kernel's programs, beside programs that do as little as can be done.

use crate::abi::{FlowKey, FlowKeyV6, NamedFlow};
use crate::error::XdpError;
use crate::programs::{Programs, of, program, test_run_times};
use crate::tables::{of as in_map, take};
use crate::walk::{RawWalk, Walk};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use dpr_rewrite::Version;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/yardsticks.bpf.o");

/// `XDP_ABORTED`: a program did not do what it was to be measured at.
const ABORTED: u32 = 0;

/// What is measured.
pub enum Subject<'a> {
    /// Nothing.
    Empty,
    /// Parse, and look up a key with a 32-byte value in an LRU hash; the key has 16 bytes, or 40 over IPv6.
    LookUp,
    /// Parse, and insert such an entry.
    Insert,
    /// The packet path.
    Path(&'a mut Programs),
}

/// Yardstick programs, loaded.
pub struct Yardsticks {
    ebpf: Ebpf,
    next: ProgramArray<MapData>,
    walk: Array<MapData, RawWalk>,
    entries: HashMap<MapData, FlowKey, [u64; 4]>,
    entries_v6: HashMap<MapData, FlowKeyV6, [u64; 4]>,
}

impl Yardsticks {
    /// Loads them, with room for so many entries of either version.
    ///
    /// # Errors
    /// The kernel has no BPF, or does not allow it to this process.
    pub fn load(entries: u32) -> Result<Self, XdpError> {
        let mut ebpf = object(entries)?;
        for name in ["restore", "empty", "look_up", "look_up_v6", "insert", "insert_v6"] {
            xdp(&mut ebpf, name)?.load().map_err(of(name))?;
        }
        Ok(Self {
            next: take(&mut ebpf, "next_program")?,
            walk: take(&mut ebpf, "walk")?,
            entries: take(&mut ebpf, "yardstick")?,
            entries_v6: take(&mut ebpf, "yardstick_v6")?,
            ebpf,
        })
    }

    /// Gives every flow of a walk an entry.
    ///
    /// # Errors
    /// There is no room.
    pub fn fill(&mut self, walk: &Walk) -> Result<(), XdpError> {
        for flow in walk.connections() {
            match NamedFlow::from(&flow) {
                NamedFlow::V4(key) => {
                    self.entries.insert(key, [0; 4], 0).map_err(in_map("yardstick"))?;
                }
                NamedFlow::V6(key) => {
                    self.entries_v6.insert(key, [0; 4], 0).map_err(in_map("yardstick_v6"))?;
                }
            }
        }
        Ok(())
    }

    /// What one of `packets` packets cost, nanoseconds, with what it costs to make them.
    ///
    /// # Errors
    /// The kernel refuses to run the programs, or the last packet was not handled as it should be.
    pub fn measure(&mut self, subject: Subject<'_>, walk: &Walk, packets: u32) -> Result<u32, XdpError> {
        let (name, is_empty) = match (&subject, walk.version()) {
            (Subject::Empty, _) => ("empty", true),
            (Subject::LookUp, Version::V4) => ("look_up", false),
            (Subject::LookUp, Version::V6) => ("look_up_v6", false),
            (Subject::Insert, Version::V4) => ("insert", false),
            (Subject::Insert, Version::V6) => ("insert_v6", false),
            (Subject::Path(_), _) => ("dpr", false),
        };
        match subject {
            Subject::Path(programs) => {
                let fd = programs.ingress_fd()?;
                self.next.set(0, fd, 0)
            }
            Subject::Empty | Subject::LookUp | Subject::Insert => {
                let fd = xdp(&mut self.ebpf, name)?.fd().map_err(of(name))?;
                self.next.set(0, fd, 0)
            }
        }
        .map_err(in_map("next_program"))?;
        self.walk.set(0, RawWalk::of(walk), 0).map_err(in_map("walk"))?;
        let restore = xdp(&mut self.ebpf, "restore")?;
        let result = test_run_times(restore, &vec![0; walk.frame_len()], packets).map_err(of("restore"))?;
        if !is_empty && result.return_value == ABORTED {
            return Err(XdpError::Aborted(name));
        }
        Ok(u32::try_from(result.duration.as_nanos()).unwrap_or(u32::MAX))
    }
}

/// The object, with room for so many entries of either version.
pub(crate) fn object(entries: u32) -> Result<Ebpf, XdpError> {
    let mut loader = EbpfLoader::new();
    for name in ["yardstick", "yardstick_v6"] {
        loader.map_max_entries(name, entries.max(1));
    }
    Ok(loader.load(OBJECT)?)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, XdpError> {
    program(ebpf, name)
}
