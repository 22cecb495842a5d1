//! What a packet costs in the kernel's programs, beside programs that do as little as can be done.

use crate::abi::FlowKey;
use crate::error::XdpError;
use crate::programs::{Programs, of, program, test_run_times};
use crate::tables::take;
use crate::walk::{FRAME_LEN, RawWalk, Walk};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/yardsticks.bpf.o");

/// `XDP_ABORTED`: a program did not do what it was to be measured at.
const ABORTED: u32 = 0;

/// What is measured.
pub enum Subject<'a> {
    /// Nothing.
    Empty,
    /// Parse, and look up a 16-byte key with a 32-byte value in an LRU hash.
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
}

impl Yardsticks {
    /// Loads them, with room for so many entries.
    ///
    /// # Errors
    /// The kernel has no BPF, or does not allow it to this process.
    pub fn load(entries: u32) -> Result<Self, XdpError> {
        let mut ebpf = EbpfLoader::new().map_max_entries("yardstick", entries.max(1)).load(OBJECT)?;
        for name in ["restore", "empty", "look_up", "insert"] {
            xdp(&mut ebpf, name)?.load().map_err(of(name))?;
        }
        Ok(Self {
            next: take(&mut ebpf, "next_program")?,
            walk: take(&mut ebpf, "walk")?,
            entries: take(&mut ebpf, "yardstick")?,
            ebpf,
        })
    }

    /// Gives every flow of a walk an entry.
    ///
    /// # Errors
    /// There is no room.
    pub fn fill(&mut self, walk: &Walk) -> Result<(), XdpError> {
        for key in walk.keys() {
            self.entries
                .insert(key, [0; 4], 0)
                .map_err(|source| XdpError::Map { name: "yardstick", source })?;
        }
        Ok(())
    }

    /// What one of `packets` packets cost, nanoseconds, with what it costs to make them.
    ///
    /// # Errors
    /// The kernel refuses to run the programs, or the last packet was not handled as it should be.
    pub fn measure(&mut self, subject: Subject<'_>, walk: &Walk, packets: u32) -> Result<u32, XdpError> {
        let (name, is_empty) = match &subject {
            Subject::Empty => ("empty", true),
            Subject::LookUp => ("look_up", false),
            Subject::Insert => ("insert", false),
            Subject::Path(_) => ("dpr", false),
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
        .map_err(|source| XdpError::Map { name: "next_program", source })?;
        self.walk.set(0, RawWalk::of(walk), 0).map_err(|source| XdpError::Map { name: "walk", source })?;
        let restore = xdp(&mut self.ebpf, "restore")?;
        let result = test_run_times(restore, &[0; FRAME_LEN], packets).map_err(of("restore"))?;
        if !is_empty && result.return_value == ABORTED {
            return Err(XdpError::Aborted(name));
        }
        Ok(u32::try_from(result.duration.as_nanos()).unwrap_or(u32::MAX))
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, XdpError> {
    program(ebpf, name)
}
