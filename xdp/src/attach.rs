//! Programs onto interfaces, and off them again.

use crate::error::XdpError;
use crate::links::{Links, link_error};
use crate::programs::{EGRESS, INGRESS, Programs, of};
use aya::programs::links::FdLink;
use aya::programs::tc::{self, SchedClassifierLink, TcAttachType};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode};
use aya::util::KernelVersion;
use std::error::Error;
use std::ffi::CString;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Kinds of links, as their pins are named.
const NATIVE: &str = "xdp-native";
const GENERIC: &str = "xdp-generic";
const REPLIES: &str = "tcx-egress";

/// How long a program in another mode may take to leave, and how often it is looked.
const LEAVING_LIMIT: Duration = Duration::from_secs(1);
const LEAVING_PAUSE: Duration = Duration::from_millis(5);

/// Where in the kernel the program for incoming packets runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before anything is allocated for the packet.
    Native,
    /// Behind the driver: on every interface, and slower.
    Generic,
}

impl Mode {
    /// Its word in status and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Native => Self::Generic,
            Self::Generic => Self::Native,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Native => NATIVE,
            Self::Generic => GENERIC,
        }
    }

    fn of_aya(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// Where it is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// In the driver, and behind it where the driver refuses.
    Best,
    /// There and nowhere else.
    Only(Mode),
}

/// How the programs were attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where the program for incoming packets runs.
    pub mode: Mode,
    /// Why it does not run in the driver, in the kernel's words; `None` when it does, or was not to.
    pub why_not_native: Option<String>,
}

/// Whether this kernel has tcx, whose links can be pinned (Linux 6.6). Before, a qdisc takes the program for replies, and
/// what a killed daemon leaves has no owner.
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

impl Programs {
    /// Attaches both programs to an interface of the thread's namespace. Links that an earlier daemon pinned get these
    /// programs in place of theirs, and no packet sees neither. Without pins, dropping `self` detaches the programs.
    ///
    /// # Errors
    /// There is no such interface, another XDP program is on it, or its driver refuses and nothing else is wanted. Nothing
    /// is attached then.
    pub fn attach(&mut self, interface: &str, wanted: Wanted) -> Result<Attached, XdpError> {
        self.attach_replies(interface)?;
        let attached = self.attach_ingress(interface, wanted);
        if attached.is_err() {
            self.detach()?;
        }
        attached
    }

    /// Attaches the program for replies to one more interface that they may leave by; nothing happens where it is.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses.
    pub fn attach_replies(&mut self, interface: &str) -> Result<(), XdpError> {
        let index = index_of(interface)?;
        if self.links.has(REPLIES, index) {
            return Ok(());
        }
        if let Some(found) = Links::found(self.pins.as_ref(), REPLIES, index)
            && let Ok(link) = self.replace_replies(found)
        {
            self.links.keep(REPLIES, index, Some(link), self.pins.as_ref());
            return Ok(());
        }
        if !has_tcx() {
            // Before tcx there has to be a place to attach to; that there is one already is no error, nor that there is
            // no program of an earlier daemon in it.
            let _ = tc::qdisc_add_clsact(interface);
            let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, EGRESS);
        }
        let program = self.egress()?;
        let id = program.attach(interface, TcAttachType::Egress).map_err(of(EGRESS))?;
        if !has_tcx() {
            self.links.keep(REPLIES, index, None, None);
            return Ok(());
        }
        let link = program.take_link(id).and_then(|link| FdLink::try_from(link).map_err(link_error));
        self.links.add(REPLIES, index, link.map_err(of(EGRESS))?, self.pins.as_ref())
    }

    /// Attaches the program for incoming packets; as [`Self::attach`].
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_ingress(&mut self, interface: &str, wanted: Wanted) -> Result<Attached, XdpError> {
        let index = index_of(interface)?;
        if let Wanted::Only(mode) = wanted {
            // The kernel takes no second program in another mode.
            let is_leaving = Links::end_found(self.pins.as_ref(), mode.other().kind(), index);
            let until = Instant::now() + if is_leaving { LEAVING_LIMIT } else { Duration::ZERO };
            while let Err(error) = self.attach_in(mode, index) {
                if Instant::now() >= until {
                    return Err(error);
                }
                sleep(LEAVING_PAUSE);
            }
            return Ok(Attached { mode, why_not_native: None });
        }
        let Err(error) = self.attach_in(Mode::Native, index) else {
            return Ok(Attached { mode: Mode::Native, why_not_native: None });
        };
        self.attach_in(Mode::Generic, index)?;
        Ok(Attached { mode: Mode::Generic, why_not_native: Some(reason_of(&error)) })
    }

    fn attach_in(&mut self, mode: Mode, index: u32) -> Result<(), XdpError> {
        if let Some(found) = Links::found(self.pins.as_ref(), mode.kind(), index)
            && let Ok(link) = self.replace_ingress(found)
        {
            self.links.keep(mode.kind(), index, Some(link), self.pins.as_ref());
            return Ok(());
        }
        let program = self.ingress()?;
        let id = program.attach_to_if_index(index, mode.of_aya()).map_err(of(INGRESS))?;
        let link = program.take_link(id).and_then(|link| FdLink::try_from(link).map_err(link_error));
        self.links.add(mode.kind(), index, link.map_err(of(INGRESS))?, self.pins.as_ref())
    }

    /// Puts this program into a link; the packet after the last one of the old program is this one's first.
    fn replace_ingress(&mut self, found: FdLink) -> Result<FdLink, ProgramError> {
        let link = XdpLink::try_from(found).map_err(link_error)?;
        let program = self.ingress().map_err(|_| ProgramError::NotLoaded)?;
        let id = program.attach_to_link(link)?;
        FdLink::try_from(program.take_link(id)?).map_err(link_error)
    }

    fn replace_replies(&mut self, found: FdLink) -> Result<FdLink, ProgramError> {
        let link = SchedClassifierLink::try_from(found).map_err(link_error)?;
        let program = self.egress().map_err(|_| ProgramError::NotLoaded)?;
        let id = program.attach_to_link(link)?;
        FdLink::try_from(program.take_link(id)?).map_err(link_error)
    }

    /// Lets go of links to interfaces other than those that `is_there` says are there, by index.
    pub fn retain_interfaces(&mut self, is_there: impl Fn(u32) -> bool) {
        self.links.retain(is_there);
    }

    /// Takes the programs off every interface, and their links out of the file system.
    ///
    /// # Errors
    /// The kernel has no programs of this object, which is of another build.
    pub fn detach(&mut self) -> Result<(), XdpError> {
        self.links.release();
        // Those that only a qdisc holds, before tcx.
        self.egress()?.unload().or_else(unless_unloaded).map_err(of(EGRESS))
    }
}

fn unless_unloaded(error: ProgramError) -> Result<(), ProgramError> {
    if matches!(error, ProgramError::NotLoaded) { Ok(()) } else { Err(error) }
}

fn index_of(interface: &str) -> Result<u32, XdpError> {
    let unknown = || XdpError::Program {
        name: INGRESS,
        source: ProgramError::UnknownInterface { name: interface.to_owned() },
    };
    let name = CString::new(interface).map_err(|_| unknown())?;
    // SAFETY: the name ends with a zero and lives until the call returns.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(unknown()) } else { Ok(index) }
}

/// The innermost cause: what the kernel said.
fn reason_of(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => reason_of(source),
        None => error.to_string(),
    }
}
