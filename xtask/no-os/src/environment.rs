//! What a freestanding program has to bring itself: an entry point, an end, a panic handler, and the four memory
//! routines that compilers may call anywhere (`memcpy`, `memmove`, `memset`, `memcmp`; LLVM also calls `bcmp`).

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

/// Status after a panic; steps of the journey have smaller numbers.
const PANICKED: i32 = 101;

/// `exit_group` of Linux on x86-64.
const EXIT_GROUP: u32 = 231;

/// The entry point: the kernel jumps here and leaves no return address.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "and rsp, -16", "call {start}", "ud2", start = sym crate::start)
}

/// Ends the program.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: the system call ends the process and touches no memory.
    unsafe { asm!("syscall", in("eax") EXIT_GROUP, in("edi") status, options(noreturn, nostack)) }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(PANICKED)
}

/// Copies `len` bytes between areas that do not overlap.
///
/// # Safety
/// Both areas are valid for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: by the caller. An instruction, as a loop would be compiled to a call of this very function.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _, options(nostack))
    }
    to
}

/// Copies `len` bytes between areas that may overlap.
///
/// # Safety
/// Both areas are valid for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for nth in 0..len {
        let nth = if to.addr() < from.addr() { nth } else { len - 1 - nth };
        // SAFETY: by the caller. Volatile, so that the loop stays a loop.
        unsafe { to.add(nth).write_volatile(from.add(nth).read_volatile()) };
    }
    to
}

/// Sets `len` bytes to `value`.
///
/// # Safety
/// The area is valid for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: by the caller.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") value as u8, inout("rcx") len => _, options(nostack))
    }
    to
}

/// Compares `len` bytes: negative, zero or positive.
///
/// # Safety
/// Both areas are valid for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for nth in 0..len {
        // SAFETY: by the caller. Volatile, so that the loop stays a loop.
        let (left, right) = unsafe { (left.add(nth).read_volatile(), right.add(nth).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// Compares `len` bytes: zero or not.
///
/// # Safety
/// Both areas are valid for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: by the caller.
    unsafe { memcmp(left, right, len) }
}
