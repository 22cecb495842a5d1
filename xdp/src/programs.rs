//! Loading the programs, and running them on a single frame.

use crate::OBJECT;
use crate::error::XdpError;
use crate::links::Links;
use crate::pins::Pins;
use crate::tables::{CARRIED, Connections, MAPS, Tables};
use aya::programs::{
    Program, ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use aya::{Ebpf, EbpfLoader};
use dpr_conntrack::MAPPINGS_MAX;

/// The program for what comes in.
pub(crate) const INGRESS: &str = "dpr";
/// The program for what local servers answer.
pub(crate) const EGRESS: &str = "dpr_reply";
/// A frame and room for what a program may add.
const FRAME_LEN_MAX: usize = 4096;

/// Entries that the tables of connections can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Connections beyond the handshake, of either IP version.
    pub flows: u32,
    /// Half-open ones; for flows of datagrams there is as much room.
    pub half_open: u32,
}

impl Sizes {
    /// Entries of a table at most.
    pub fn of(self, connections: Connections) -> u32 {
        match connections {
            Connections::Flows => self.flows.max(1),
            Connections::HalfOpen | Connections::Datagrams => self.half_open.max(1),
        }
    }

    /// Names of flows of either IP version that user space decides about, at most: two of each mapping that a director can have.
    pub fn carried(self) -> u32 {
        2 * self.flows.clamp(1, MAPPINGS_MAX as u32)
    }
}

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its return value: an action of XDP or of tc.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// Both programs.
pub struct Programs {
    ebpf: Ebpf,
    pub(crate) links: Links,
    pub(crate) pins: Option<Pins>,
}

/// Loads the object, and makes its maps with these sizes; with `pins`, takes those that are pinned, and pins the others.
///
/// # Errors
/// The kernel has no BPF, does not allow it to this process, or its verifier does not understand the programs.
pub fn load(sizes: Sizes, pins: Option<Pins>) -> Result<(Programs, Tables), XdpError> {
    let mut loader = EbpfLoader::new();
    for connections in Connections::ALL {
        for name in connections.names() {
            loader.map_max_entries(name, sizes.of(connections));
        }
    }
    for name in CARRIED {
        loader.map_max_entries(name, sizes.carried());
    }
    if let Some(pins) = &pins {
        for name in MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut ebpf = loader.load(OBJECT)?;
    let tables = Tables::take(&mut ebpf)?;
    let mut programs = Programs { ebpf, links: Links::default(), pins };
    programs.ingress()?.load().map_err(of(INGRESS))?;
    programs.egress()?.load().map_err(of(EGRESS))?;
    Ok((programs, tables))
}

impl Programs {
    /// Runs the program for incoming packets on one frame.
    ///
    /// # Errors
    /// The kernel refuses to run it, for example on a frame shorter than an Ethernet header.
    pub fn run(&mut self, frame: &[u8]) -> Result<Run, XdpError> {
        let program: &Xdp = self.ingress()?;
        run(|options| program.test_run(options), frame).map_err(of(INGRESS))
    }

    /// Runs the program for replies on one frame.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_reply(&mut self, frame: &[u8]) -> Result<Run, XdpError> {
        let program: &SchedClassifier = self.egress()?;
        run(|options| program.test_run(options), frame).map_err(of(EGRESS))
    }

    /// The program for incoming packets, for a table of programs.
    pub(crate) fn ingress_fd(&mut self) -> Result<&ProgramFd, XdpError> {
        self.ingress()?.fd().map_err(of(INGRESS))
    }

    pub(crate) fn ingress(&mut self) -> Result<&mut Xdp, XdpError> {
        program(&mut self.ebpf, INGRESS)
    }

    pub(crate) fn egress(&mut self) -> Result<&mut SchedClassifier, XdpError> {
        program(&mut self.ebpf, EGRESS)
    }
}

/// A program of an object, by its name and kind.
pub(crate) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, XdpError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(XdpError::Missing(name))?;
    program.try_into().map_err(of(name))
}

/// Runs an XDP program so many times in a row; the frame is not restored in between.
pub(crate) fn test_run_times(program: &Xdp, frame: &[u8], times: u32) -> Result<TestRunResult, ProgramError> {
    program.test_run(TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() })
}

fn run<E>(
    test_run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, E>,
    frame: &[u8],
) -> Result<Run, E> {
    let mut out = vec![0; FRAME_LEN_MAX];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result = test_run(options)?;
    out.truncate(result.data_size_out as usize);
    Ok(Run { action: result.return_value, frame: out })
}

pub(crate) fn of(name: &'static str) -> impl Fn(ProgramError) -> XdpError {
    move |source| XdpError::Program { name, source }
}
