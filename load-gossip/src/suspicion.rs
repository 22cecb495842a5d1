//! How long a peer may be silent before it is suspected, learned from when its reports arrived.
//!
//! The idea is that of the phi-accrual failure detector (Hayashibara, Défago, Yared, Katayama 2004): not a
//! fixed timeout but one that follows the distribution of arrival times. Instead of a probability it uses
//! mean and mean deviation, kept as TCP keeps them for its retransmission timer (RFC 6298), because loss
//! makes arrival times anything but normally distributed.
//!
//! The deviation rises quickly and falls slowly: with symmetric gains a lucky run of ten reports at 30 %
//! loss would make the detector forget the loss, and the next unlucky run look like death.

use std::time::Duration;

/// Gain of the mean, per arrival.
const MEAN_GAIN: i64 = 16;
/// Gain of the deviation while it rises; 1/8 reaches most of a change within a second at 100 ms.
const DEVIATION_GAIN_UP: i64 = 8;
/// Gain of the deviation while it falls; 1/64 remembers for about six seconds at 100 ms.
const DEVIATION_GAIN_DOWN: i64 = 64;
/// Deviations of silence that are suspicious.
const DEVIATIONS: i64 = 8;

/// Arrival times of one peer's reports.
#[derive(Clone, Debug)]
pub(crate) struct ArrivalTimes {
    mean_ns: i64,
    deviation_ns: i64,
}

impl ArrivalTimes {
    /// Before anything is known: as announced, with a quarter of an interval of deviation.
    pub(crate) fn expecting(interval: Duration) -> Self {
        Self { mean_ns: nanos(interval), deviation_ns: nanos(interval) / 4 }
    }

    /// Learns that `gap` passed between two fresh reports.
    ///
    /// A gap beyond the longest possible patience was an outage and says nothing about jitter or loss.
    pub(crate) fn record(&mut self, gap: Duration, interval: Duration) {
        if nanos(gap) > patience_max_ns(interval) {
            return;
        }
        let difference = nanos(gap) - self.mean_ns;
        let change = difference.abs() - self.deviation_ns;
        let gain = if change > 0 { DEVIATION_GAIN_UP } else { DEVIATION_GAIN_DOWN };
        self.deviation_ns += change / gain;
        self.mean_ns += difference / MEAN_GAIN;
    }

    /// Silence after which the peer is suspected: mean + 8 deviations, the deviation at least a quarter
    /// of an interval, the sum 3.3 to 14 intervals.
    ///
    /// The lower bound is three intervals at their longest (sending jitters by 10 %), so that two lost
    /// reports alone never make a suspect. The upper bound keeps the promise of detection under 1.5 s at
    /// 100 ms: at 30 % loss thirteen reports in a row are lost once in six million.
    pub(crate) fn patience(&self, interval: Duration) -> Duration {
        let interval_ns = nanos(interval);
        let deviation_ns = self.deviation_ns.max(interval_ns / 4);
        let patience_ns = self.mean_ns + DEVIATIONS * deviation_ns;
        let patience_ns = patience_ns.clamp(patience_min_ns(interval), patience_max_ns(interval));
        Duration::from_nanos(patience_ns.unsigned_abs())
    }

    /// What [`Self::patience`] is at least, whatever arrived.
    pub(crate) fn patience_min(interval: Duration) -> Duration {
        Duration::from_nanos(patience_min_ns(interval).unsigned_abs())
    }
}

fn patience_min_ns(interval: Duration) -> i64 {
    nanos(interval) * 33 / 10
}

fn patience_max_ns(interval: Duration) -> i64 {
    nanos(interval) * 14
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn regular_arrivals_keep_patience_at_its_minimum() {
        let mut arrivals = ArrivalTimes::expecting(INTERVAL);
        for step in 0..1000_u64 {
            arrivals.record(Duration::from_millis(90 + step * 7 % 21), INTERVAL);
        }

        assert_eq!(arrivals.patience(INTERVAL), Duration::from_millis(330));
    }

    #[test]
    fn loss_makes_patient_and_patience_has_an_end() {
        let mut arrivals = ArrivalTimes::expecting(INTERVAL);
        for step in 0..100_u64 {
            arrivals.record(INTERVAL * if step % 3 == 0 { 4 } else { 1 }, INTERVAL);
        }
        assert!(arrivals.patience(INTERVAL) > Duration::from_millis(800));

        for _ in 0..100 {
            arrivals.record(INTERVAL, INTERVAL);
            arrivals.record(INTERVAL * 12, INTERVAL);
        }
        assert_eq!(arrivals.patience(INTERVAL), INTERVAL * 14);
    }

    #[test]
    fn an_outage_is_not_taken_for_jitter() {
        let mut arrivals = ArrivalTimes::expecting(INTERVAL);

        arrivals.record(Duration::from_secs(600), INTERVAL);

        assert_eq!(arrivals.patience(INTERVAL), Duration::from_millis(330));
    }

    #[test]
    fn a_good_network_is_believed_again_after_half_a_minute() {
        let mut arrivals = ArrivalTimes::expecting(INTERVAL);
        for step in 0..200_u64 {
            arrivals.record(INTERVAL * if step % 3 == 0 { 4 } else { 1 }, INTERVAL);
        }

        for _ in 0..300 {
            arrivals.record(INTERVAL, INTERVAL);
        }

        assert_eq!(arrivals.patience(INTERVAL), Duration::from_millis(330));
    }
}
