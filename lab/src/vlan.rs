//! A machine in a VLAN: everything that it sends leaves under tags, and only what comes under them reaches it.
//!
//! Its kernel may have neither VLAN interfaces nor bridges that know VLANs, so two programs at its interface (tcx, Linux
//! 6.6) push and pop the tags. Only root of the initial user namespace may load them.

use crate::error::LabError;
use crate::machine::INTERFACE;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// EtherTypes of a customer's and of a provider's tag (IEEE 802.1Q, 802.1ad).
const CUSTOMER: u16 = 0x8100;
const PROVIDER: u16 = 0x88a8;

/// The programs, for as long as this lives.
#[must_use]
#[derive(Debug)]
pub struct VlanTags {
    _links: [OwnedFd; 2],
}

impl VlanTags {
    /// Attaches them to the calling thread's machine. `vlans` are the identifiers of one tag or two, the outer one first.
    pub(crate) fn begin(vlans: &[u16]) -> Result<Self, LabError> {
        let doing = || format!("tag frames at {INTERFACE}");
        let begin = || {
            let egress = attach(&push(vlans), TCX_EGRESS)?;
            Ok(Self { _links: [attach(&pop(vlans), TCX_INGRESS)?, egress] })
        };
        begin().map_err(LabError::io(doing))
    }
}

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

const MOVE_REGISTER: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND_NUMBER: u8 = 0x57;
const LOAD_WORD: u8 = 0x61;
const JUMP_IF_EQUAL: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `bpf_skb_vlan_push` and `bpf_skb_vlan_pop`.
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
/// Where `struct __sk_buff` has the outer tag.
const VLAN_TCI: i16 = 24;
const VLAN_IDENTIFIER: i32 = 0x0fff;
/// What a program of tcx says of a packet: go on, or drop it.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// Puts the tags on, the inner one first.
fn push(vlans: &[u16]) -> Vec<Instruction> {
    let mut program = vec![instruction(MOVE_REGISTER, 6, 1, 0, 0)];
    for (nth, vlan) in vlans.iter().enumerate().rev() {
        let ethertype = if nth + 1 == vlans.len() { CUSTOMER } else { PROVIDER };
        program.extend([
            instruction(MOVE_REGISTER, 1, 6, 0, 0),
            instruction(MOVE_NUMBER, 2, 0, 0, i32::from(ethertype.to_be())),
            instruction(MOVE_NUMBER, 3, 0, 0, i32::from(*vlan)),
            instruction(CALL, 0, 0, 0, VLAN_PUSH),
        ]);
    }
    program.extend(end(NEXT));
    program
}

/// Takes the tags off, and drops what has others. What has no tags has no identifier either.
fn pop(vlans: &[u16]) -> Vec<Instruction> {
    let mut program = vec![instruction(MOVE_REGISTER, 6, 1, 0, 0)];
    for vlan in vlans {
        program.extend([
            instruction(LOAD_WORD, 2, 6, VLAN_TCI, 0),
            instruction(AND_NUMBER, 2, 0, 0, VLAN_IDENTIFIER),
            instruction(JUMP_IF_EQUAL, 2, 0, 2, i32::from(*vlan)),
        ]);
        program.extend(end(DROP));
        program.extend([instruction(MOVE_REGISTER, 1, 6, 0, 0), instruction(CALL, 0, 0, 0, VLAN_POP)]);
    }
    program.extend(end(NEXT));
    program
}

fn end(verdict: i32) -> [Instruction; 2] {
    [instruction(MOVE_NUMBER, 0, 0, 0, verdict), instruction(EXIT, 0, 0, 0, 0)]
}

/// Commands and attach types of bpf(2).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the rest is zero.
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    first: u64,
    license: u64,
    rest: [u64; 12],
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`; the rest is zero.
#[repr(C)]
struct CreateLink {
    program: u32,
    interface: u32,
    attach_type: u32,
    rest: [u32; 13],
}

fn attach(program: &[Instruction], attach_type: u32) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let load = LoadProgram {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instructions: program.len() as u32,
        first: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 12],
    };
    // SAFETY: instructions and license, which `load` points to, outlive the call.
    let program = unsafe { bpf(BPF_PROG_LOAD, &load)? };
    let name = CString::new(INTERFACE)?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    let interface = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let link = CreateLink { program: program.as_raw_fd() as u32, interface, attach_type, rest: [0; 13] };
    // SAFETY: `link` points to nothing.
    unsafe { bpf(BPF_LINK_CREATE, &link) }
}

/// Calls bpf(2) for a new descriptor.
///
/// # Safety
/// What `attributes` points to has to outlive the call.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: pointer and length describe `attributes`; what it points to is the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
