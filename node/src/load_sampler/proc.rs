//! Pure parsers of `/proc` text (proc(5)); `None` where the text does not say it.

/// Processor time of the whole host since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTicks {
    /// Spent working, stolen time included: it is not to be had.
    pub(super) busy: u64,
    /// Spent at all.
    pub(super) total: u64,
}

/// The first line of `/proc/stat`.
pub(super) fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest time is within user time.
    let fields: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total = fields.iter().fold(0u64, |sum, ticks| sum.saturating_add(*ticks));
    let idle = fields.get(3)?.saturating_add(fields.get(4).copied().unwrap_or(0));
    Some(CpuTicks { busy: total.saturating_sub(idle), total })
}

/// Tasks that run or could run, from `/proc/stat`.
pub(super) fn runnable(stat: &str) -> Option<u64> {
    field(stat, "procs_running")
}

/// Processors of the host, from `/proc/stat`.
pub(super) fn processors(stat: &str) -> u64 {
    let is_processor = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    (stat.lines().filter(is_processor).count() as u64).max(1)
}

/// Memory in KiB: not available, and all.
pub(super) fn memory_kib(meminfo: &str) -> Option<(u64, u64)> {
    let total = field(meminfo, "MemTotal:")?;
    Some((total.saturating_sub(field(meminfo, "MemAvailable:")?), total))
}

/// Share of the last 10 s in which some task waited, in permille, from a file of `/proc/pressure`.
pub(super) fn pressure_permille(pressure: &str) -> Option<u16> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    // A share between 0 and 100 percent fits.
    (0.0..=100.0).contains(&percent).then_some((percent * 10.0) as u16)
}

/// TCP sockets in use over one IP version, from `/proc/net/sockstat` or `/proc/net/sockstat6`.
pub(super) fn tcp_in_use(sockstat: &str) -> Option<u64> {
    let line = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP: ").or_else(|| line.strip_prefix("TCP6: ")))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "inuse")?;
    words.next()?.parse().ok()
}

/// The number after a word at the start of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 50 800 20 5 5 10 7 0\n\
                        cpu0 50 5 25 400 10 2 3 5 3 0\n\
                        cpu1 50 5 25 400 10 3 2 5 4 0\n\
                        intr 12345 0 0\n\
                        ctxt 99\n\
                        procs_running 3\n\
                        procs_blocked 0\n";

    #[test]
    fn busy_is_everything_but_idle_and_waiting() {
        assert_eq!(cpu_ticks(STAT), Some(CpuTicks { busy: 180, total: 1000 }));
        assert_eq!(runnable(STAT), Some(3));
        assert_eq!(processors(STAT), 2);
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let meminfo = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:   12000 kB\n";
        assert_eq!(memory_kib(meminfo), Some((4000, 16000)));
    }

    #[test]
    fn pressure_and_sockets_are_found() {
        let pressure =
            "some avg10=12.34 avg60=1.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=0\n";
        let sockstat = "sockets: used 20\nTCP: inuse 5 orphan 0 tw 2 alloc 6 mem 1\nUDP: inuse 3 mem 0\n";
        assert_eq!(pressure_permille(pressure), Some(123));
        assert_eq!(tcp_in_use(sockstat), Some(5));
        assert_eq!(tcp_in_use("TCP6: inuse 4\nUDP6: inuse 3\n"), Some(4));
    }

    #[test]
    fn text_that_does_not_say_it_gives_nothing() {
        for text in ["", "cpu", "cpu x y", "cpu  1 2", "MemTotal: x", "some avg10=nan", "TCP: inuse"] {
            assert_eq!(cpu_ticks(text), None, "{text}");
            assert_eq!(memory_kib(text), None, "{text}");
            assert_eq!(pressure_permille(text), None, "{text}");
            assert_eq!(tcp_in_use(text), None, "{text}");
        }
        assert_eq!(processors(""), 1);
    }
}
