//! The control group (v2) that the process lives in: its limits are the machine that it has.
//!
//! Kernel documentation: Documentation/admin-guide/cgroup-v2.rst.

use super::proc::field;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where the unified hierarchy is mounted, cgroups(7).
const MOUNT: &str = "/sys/fs/cgroup";

/// Processor quota: microseconds of processor time in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Processor time, microseconds.
    pub(super) quota_us: u64,
    /// In this much wall-clock time, microseconds.
    pub(super) period_us: u64,
}

/// The process's own control group and its limits, if it has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Cgroup {
    /// The group that has the processor quota: the process's own or the nearest above it.
    cpu: Option<(PathBuf, Quota)>,
    /// The group that has the memory limit, and the limit in bytes.
    memory: Option<(PathBuf, u64)>,
}

impl Cgroup {
    /// The limits as they are now.
    pub(super) fn of_this_process() -> Self {
        let own = read_to_string("/proc/self/cgroup").ok().and_then(|text| own_path(&text));
        own.map(|path| Self::at(&Path::new(MOUNT).join(path))).unwrap_or_default()
    }

    fn at(own: &Path) -> Self {
        let mut found = Self::default();
        for group in own.ancestors().take_while(|group| group.starts_with(MOUNT)) {
            let read = |name: &str| read_to_string(group.join(name)).ok();
            if found.cpu.is_none() {
                found.cpu = read("cpu.max").and_then(|text| Some((group.to_owned(), quota(&text)?)));
            }
            if found.memory.is_none() {
                found.memory =
                    read("memory.max").and_then(|text| Some((group.to_owned(), text.trim().parse().ok()?)));
            }
        }
        found
    }

    /// The processor quota, if there is one.
    pub(super) fn quota(&self) -> Option<Quota> {
        self.cpu.as_ref().map(|(_, quota)| *quota)
    }

    /// Processor time used by the group with the quota, microseconds since it was made.
    pub(super) fn cpu_used_us(&self) -> Option<u64> {
        let (group, _) = self.cpu.as_ref()?;
        field(&read_to_string(group.join("cpu.stat")).ok()?, "usage_usec")
    }

    /// Memory in bytes: used without what the kernel can drop at once, and the limit.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let (group, limit) = self.memory.as_ref()?;
        let current: u64 = read_to_string(group.join("memory.current")).ok()?.trim().parse().ok()?;
        let statistics = read_to_string(group.join("memory.stat")).unwrap_or_default();
        let droppable = field(&statistics, "inactive_file").unwrap_or(0);
        Some((current.saturating_sub(droppable), *limit))
    }
}

/// The path of the process's group below the mount, from `/proc/self/cgroup`. `None` without a unified hierarchy.
fn own_path(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // "/../.." is what a process sees of a group outside of its cgroup namespace.
    (!path.split('/').any(|part| part == "..")).then(|| PathBuf::from(path))
}

/// The content of `cpu.max`; `None` without a quota.
fn quota(text: &str) -> Option<Quota> {
    let mut words = text.split_whitespace();
    let quota_us = words.next()?.parse().ok()?;
    let period_us = words.next()?.parse().ok()?;
    (quota_us > 0 && period_us > 0).then_some(Quota { quota_us, period_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_quota_and_max_is_none() {
        assert_eq!(quota("50000 100000\n"), Some(Quota { quota_us: 50_000, period_us: 100_000 }));
        for text in ["max 100000\n", "", "0 100000", "5 0", "5"] {
            assert_eq!(quota(text), None, "{text}");
        }
    }

    #[test]
    fn the_own_group_is_the_one_of_the_unified_hierarchy() {
        assert_eq!(own_path("0::/system.slice/dpr.service\n"), Some("system.slice/dpr.service".into()));
        assert_eq!(own_path("12:cpu:/x\n0::/\n"), Some("".into()));
        assert_eq!(own_path("0::/../other\n"), None);
        assert_eq!(own_path("12:cpu:/x\n"), None);
    }

    #[test]
    fn a_path_outside_of_the_mount_has_no_limits() {
        assert_eq!(Cgroup::at(Path::new("/nowhere")).quota(), None);
    }
}
