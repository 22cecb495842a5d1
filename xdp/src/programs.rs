//! Loading the programs, attaching them, and running them on a single frame.

use crate::OBJECT;
use crate::error::XdpError;
use crate::tables::Tables;
use aya::programs::tc::{self, TcAttachType};
use aya::programs::{
    Program, ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
    XdpMode,
};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use std::error::Error;

/// The program for what comes in.
const INGRESS: &str = "dpr";
/// The program for what local servers answer.
const EGRESS: &str = "dpr_reply";
/// A frame and room for what a program may add.
const FRAME_LEN_MAX: usize = 4096;

/// Entries that the tables of connections can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Connections beyond the handshake.
    pub flows: u32,
    /// Half-open ones; for flows of datagrams there is as much room.
    pub half_open: u32,
}

/// Where in the kernel the program for incoming packets runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before anything is allocated for the packet.
    Native,
    /// Behind the driver: on every interface, and slower.
    Generic,
}

/// How the programs were attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where the program for incoming packets runs.
    pub mode: Mode,
    /// Why it does not run in the driver, in the kernel's words; `None` when it does, or was not to.
    pub why_not_native: Option<String>,
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
}

/// Loads the object, and makes its maps with these sizes.
///
/// # Errors
/// The kernel has no BPF, does not allow it to this process, or its verifier does not understand the programs.
pub fn load(sizes: Sizes) -> Result<(Programs, Tables), XdpError> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("flows", sizes.flows.max(1))
        .map_max_entries("half_open", sizes.half_open.max(1))
        .map_max_entries("datagrams", sizes.half_open.max(1))
        .load(OBJECT)?;
    let tables = Tables::take(&mut ebpf)?;
    let mut programs = Programs { ebpf };
    programs.ingress()?.load().map_err(of(INGRESS))?;
    programs.egress()?.load().map_err(of(EGRESS))?;
    Ok((programs, tables))
}

impl Programs {
    /// Attaches both programs to an interface of the thread's namespace: in the driver where that is possible and
    /// `native` says so, behind it otherwise. Dropping `self` detaches them.
    ///
    /// # Errors
    /// There is no such interface, or another XDP program is on it. Nothing is attached then.
    pub fn attach(&mut self, interface: &str, native: bool) -> Result<Attached, XdpError> {
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 6, 0)) {
            // Before tcx there has to be a place to attach to; that there is one already is no error.
            let _ = tc::qdisc_add_clsact(interface);
        }
        let replies = self.egress()?.attach(interface, TcAttachType::Egress).map_err(of(EGRESS))?;
        let attached = self.attach_ingress(interface, native);
        if attached.is_err() {
            self.egress()?.detach(replies).map_err(of(EGRESS))?;
        }
        attached
    }

    fn attach_ingress(&mut self, interface: &str, native: bool) -> Result<Attached, XdpError> {
        let mut why_not_native = None;
        if native {
            match self.ingress()?.attach(interface, XdpMode::Driver) {
                Ok(_) => return Ok(Attached { mode: Mode::Native, why_not_native }),
                Err(error) => why_not_native = Some(reason_of(&error)),
            }
        }
        self.ingress()?.attach(interface, XdpMode::Skb).map_err(of(INGRESS))?;
        Ok(Attached { mode: Mode::Generic, why_not_native })
    }

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

    fn ingress(&mut self) -> Result<&mut Xdp, XdpError> {
        program(&mut self.ebpf, INGRESS)
    }

    fn egress(&mut self) -> Result<&mut SchedClassifier, XdpError> {
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

/// The innermost cause: what the kernel said.
fn reason_of(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => reason_of(source),
        None => error.to_string(),
    }
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
