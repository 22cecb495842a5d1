//! Packets between network namespaces at the speed of programs, and what stands at both ends of a cable for them.
//!
//! A test run with live frames sends what a program makes (`BPF_F_TEST_XDP_LIVE_FRAMES`, Documentation/bpf/bpf_prog_run.rst), without
//! a socket or a system call for each packet.

use crate::error::XdpError;
use crate::programs::{of, program};
use crate::tables::take;
use crate::walk::{RawWalk, Walk};
use crate::yardsticks;
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};

/// Packets that leave before the kernel looks after anything else; its own default.
const BATCH: u32 = 64;

/// What stands at a cable's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Counts what comes in, and drops it.
    Swallow,
    /// Sends what comes in back: the least that a director can do.
    Bounce,
    /// Hands what comes in to the kernel.
    Pass,
}

impl End {
    fn program(self) -> &'static str {
        match self {
            Self::Swallow => "swallow",
            Self::Bounce => "bounce",
            Self::Pass => "empty",
        }
    }
}

/// Programs that send, and that stand at the ends. Dropping it takes them off.
pub struct Traffic {
    ebpf: Ebpf,
    walk: Array<MapData, RawWalk>,
    swallowed: PerCpuArray<MapData, u64>,
}

impl Traffic {
    /// Loads them.
    ///
    /// # Errors
    /// The kernel has no BPF, or does not allow it to this process.
    pub fn load() -> Result<Self, XdpError> {
        let mut ebpf = yardsticks::object(1)?;
        for name in ["send", "bounce", "swallow", "empty"] {
            program::<Xdp>(&mut ebpf, name)?.load().map_err(of(name))?;
        }
        Ok(Self { walk: take(&mut ebpf, "walk")?, swallowed: take(&mut ebpf, "swallowed")?, ebpf })
    }

    /// Puts a program into the driver of an interface of the thread's namespace.
    ///
    /// # Errors
    /// There is no such interface, or its driver takes no programs.
    pub fn put(&mut self, end: End, interface: &str) -> Result<(), XdpError> {
        let name = end.program();
        let xdp: &mut Xdp = program(&mut self.ebpf, name)?;
        xdp.attach(interface, XdpMode::Driver).map_err(of(name))?;
        Ok(())
    }

    /// Sends packets of a walk by the interface with index `link` of the thread's namespace, which must have a program. Those that
    /// find its queue full are lost.
    ///
    /// # Errors
    /// The kernel does not send live frames (before Linux 5.18), or there is no such interface.
    pub fn send(&mut self, link: u32, walk: &Walk, packets: u32) -> Result<(), XdpError> {
        self.walk.set(0, RawWalk::of(walk), 0).map_err(|source| XdpError::Map { name: "walk", source })?;
        let frame = vec![0; walk.frame_len()];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> =
            [0, frame.len() as u32, 0, link, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let send: &mut Xdp = program(&mut self.ebpf, "send")?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        send.test_run(options).map_err(of("send"))?;
        Ok(())
    }

    /// Packets that have reached [`End::Swallow`] so far.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub fn swallowed(&self) -> Result<u64, XdpError> {
        let counts =
            self.swallowed.get(&0, 0).map_err(|source| XdpError::Map { name: "swallowed", source })?;
        Ok(counts.iter().sum())
    }
}
