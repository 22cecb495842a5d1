//! What really went over a link: a packet capture in a machine's namespace, to memory and to pcap files.
//!
//! Proof of absence needs a complete capture, so frames go through a memory-mapped ring instead of a socket's small
//! buffer, and the kernel's count of lost frames comes with the result. Frames are cut to [`SNAP_LEN`] bytes: that holds
//! every frame of an Ethernet, and the headers of those that the kernel has not segmented yet.

mod pcap;
mod ring;

use crate::error::LabError;
use crate::machine::Machine;
use ring::Ring;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

pub use ring::SNAP_LEN;

/// One frame on the cable of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// True if the machine sent it, false if it received it.
    pub outgoing: bool,
    /// Its bytes from the Ethernet header on, at most [`SNAP_LEN`].
    pub bytes: Vec<u8>,
    /// Its length on the wire, bytes; more than the MTU where the kernel leaves segmentation to the interface.
    pub length: u32,
}

/// Everything that a capture saw.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Frames that the filter wanted, in order.
    pub frames: Vec<Frame>,
    /// Frames of any kind that the kernel had no room for; nothing is proven by absence unless this is 0.
    pub lost: u64,
}

/// A running capture; dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    frames: mpsc::Receiver<Frame>,
    seen: Vec<Frame>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, LabError>>>,
}

impl Capture {
    /// Starts to capture on the cable of `machine` what `filter` wants; it runs when this returns.
    ///
    /// The tap is at the switch's end of the cable: what it shows was really on the wire, also where the machine's
    /// programs bypass their own taps.
    ///
    /// # Errors
    ///
    /// The packet socket or its ring could not be made.
    pub fn start(
        machine: &Machine,
        filter: impl Fn(&Frame) -> bool + Send + 'static,
    ) -> Result<Self, LabError> {
        let doing = format!("capture at {}", machine.name());
        let port = machine.port().name();
        let open = || Ring::open(port);
        let opened = machine.switch().namespace().enter(open).map_err(LabError::host(&doing))?;
        let failed = LabError::io(move || doing.clone());
        let mut ring = opened.map_err(&failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, frames) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let pump = move || {
            let mut take = |frame| {
                if filter(&frame) {
                    // The receiver is gone only when nobody wants to know any more.
                    let _ = tell.send(frame);
                }
            };
            while !stopped.load(Ordering::Acquire) {
                ring.wait(POLL_INTERVAL).map_err(&failed)?;
                ring.drain(&mut take);
            }
            ring.drain(&mut take);
            ring.lost().map_err(&failed)
        };
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(pump)
            .map_err(LabError::io(|| "start a capture thread".to_owned()))?;
        Ok(Self { frames, seen: Vec::new(), stop, thread: Some(thread) })
    }

    /// What was captured up to now.
    pub fn frames(&mut self) -> &[Frame] {
        self.seen.extend(self.frames.try_iter());
        &self.seen
    }

    /// Ends the capture.
    ///
    /// # Errors
    ///
    /// The capture failed while it ran.
    pub fn finish(mut self) -> Result<Captured, LabError> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("a capture has a thread until it is finished or dropped");
        let lost = thread.join().expect("the capture thread has no reason to panic")?;
        self.frames();
        Ok(Captured { frames: std::mem::take(&mut self.seen), lost })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Captured {
    /// Writes the frames as a pcap file that Wireshark and tcpdump read.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<(), LabError> {
        let doing = || format!("write {}", path.display());
        std::fs::write(path, pcap::file(&self.frames)).map_err(LabError::io(doing))
    }
}

/// How late the end of a capture may be noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
