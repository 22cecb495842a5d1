//! How late this machine is: bounds of some milliseconds mean nothing where a thread waits longer than that for a processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const STEP: Duration = Duration::from_millis(5);
/// Whoever is later is busy with something else.
const PUNCTUAL: Duration = Duration::from_millis(20);

/// A thread that sleeps and looks by how much too long it slept.
#[derive(Debug)]
pub struct Punctuality {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Punctuality {
    /// Watches from now on.
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut latest = Duration::ZERO;
            while !stopped.load(Ordering::Acquire) {
                let began = Instant::now();
                std::thread::sleep(STEP);
                latest = latest.max(began.elapsed().saturating_sub(STEP));
            }
            latest
        });
        Self { stop, thread }
    }

    /// By how much the latest wake-up was late, and what a bound has to be given on top for that: nothing, or `slack`.
    pub fn finish(self, slack: Duration) -> (Duration, Duration) {
        self.stop.store(true, Ordering::Release);
        let latest = self.thread.join().unwrap();
        (latest, if latest <= PUNCTUAL { Duration::ZERO } else { slack })
    }
}
