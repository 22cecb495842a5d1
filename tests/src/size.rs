//! How many connections are open while something happens.

use crate::owners::entrances;
use crate::stage::{PATIENCE, Stage, crowd_plan};
use dpr_lab::paired::{Crowd, CrowdPlan};
use rustix::process::{Resource, getrlimit};
use std::time::Duration;

/// Descriptors of everything but connections, each of which takes one at either end.
const OTHER_FILES: u64 = 400;

/// Connections to all entrances of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Open all the time.
    pub open: u16,
    /// Over which those are opened; all at once they would be a test of queues.
    pub opening: Duration,
    /// Between two exchanges of each.
    pub pause: Duration,
    /// Opened while something happens.
    pub new: u16,
    /// Other scenarios run at the same time, so that nothing can be said about milliseconds.
    pub beside_others: bool,
}

impl Size {
    /// What scenarios that run beside others can bear.
    pub const SOME: Self = Self {
        open: 500,
        opening: Duration::from_secs(1),
        pause: Duration::from_millis(500),
        new: 200,
        beside_others: true,
    };

    /// What a machine bears whose nodes all see all packets.
    pub const THOUSANDS: Self = Self {
        open: 2000,
        opening: Duration::from_secs(3),
        pause: Duration::from_secs(2),
        new: 1000,
        beside_others: false,
    };

    /// Ten thousand, or as many as this process may have: some systems let not even root go beyond a limit.
    pub fn as_many_as_possible() -> Self {
        let new = 300;
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = files.saturating_sub(OTHER_FILES) / 2 - u64::from(new);
        Self {
            open: u16::try_from(most).map_or(10_000, |most| most.min(10_000)),
            opening: Duration::from_secs(8),
            pause: Duration::from_secs(4),
            new,
            beside_others: false,
        }
    }

    /// All that are open all the time, with copies of them where they belong.
    pub fn open(self, stage: &Stage) -> Crowd {
        let mut crowd = self.crowd(stage, self.open, self.opening);
        crowd.wait_until_open(self.opening + PATIENCE).unwrap();
        // What lasts 200 ms is announced to backups.
        std::thread::sleep(Duration::from_secs(1));
        crowd.measure_anew();
        crowd
    }

    /// New ones, from now on and for so long.
    pub fn open_for(self, stage: &Stage, opening: Duration) -> Crowd {
        self.crowd(stage, self.new, opening)
    }

    fn crowd(self, stage: &Stage, connections: u16, opening: Duration) -> Crowd {
        let plan = CrowdPlan { opening, pause: self.pause, ..crowd_plan(entrances(stage), connections) };
        Crowd::open(&stage.clients[0], plan).unwrap()
    }
}
