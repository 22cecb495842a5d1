//! When neighbours have to be told, unasked, that an address is here now.

use dpr_model::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often each address is announced: `MAX_NEIGHBOR_ADVERTISEMENT` of RFC 4861, section 10. RFC 5227, section 1.1 wants
/// at least two for IPv4.
const TIMES: u8 = 3;
/// Between two announcements of one address: `RetransTimer`, the same section.
const PAUSE: Duration = Duration::from_secs(1);

/// The addresses that are here, and what is left to be announced.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    by_address: BTreeMap<IpAddr, Announced>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    left: u8,
    due: Timestamp,
}

impl Announcer {
    /// These addresses are here now, and no others.
    pub(super) fn follow(&mut self, addresses: &[IpAddr], now: Timestamp) {
        self.by_address.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.by_address.entry(*address).or_insert(Announced { left: TIMES, due: now });
        }
    }

    /// The addresses to announce now.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<IpAddr> {
        let is_due = |announced: &Announced| announced.left > 0 && announced.due <= now;
        let mut due = Vec::new();
        for (address, announced) in self.by_address.iter_mut().filter(|(_, announced)| is_due(announced)) {
            announced.left -= 1;
            announced.due = now + PAUSE;
            due.push(*address);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_announced_three_times_whenever_it_comes() {
        let here = [IpAddr::from([192, 0, 2, 99])];
        let mut announcer = Announcer::default();
        let rounds = |announcer: &mut Announcer, from: u64| {
            (0..60)
                .filter(|tenth| !announcer.due(Timestamp::from_millis(from + tenth * 100)).is_empty())
                .count()
        };

        announcer.follow(&here, Timestamp::from_millis(1000));
        assert_eq!(rounds(&mut announcer, 1000), 3);
        announcer.follow(&here, Timestamp::from_millis(8000));
        assert_eq!(rounds(&mut announcer, 8000), 0);
        announcer.follow(&[], Timestamp::from_millis(15_000));
        announcer.follow(&here, Timestamp::from_millis(15_000));
        assert_eq!(rounds(&mut announcer, 15_000), 3);
    }
}
