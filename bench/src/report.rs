//! The table that people see, and whether it is good.

use crate::cases::Case;
use std::process::ExitCode;

/// A count may exceed its baseline by this much, percent: less is the compiler's mood.
const TOLERANCE_PERCENT: u64 = 5;

/// What was found about the cases so far.
#[derive(Debug)]
pub(crate) struct Report {
    regressions: u32,
}

impl Report {
    pub(crate) fn new() -> Self {
        println!(
            "{:<22} {:>12} {:>12} {:>8} {:>12}",
            "instructions", "counted", "baseline", "change", "goal"
        );
        Self { regressions: 0 }
    }

    /// Judges one case and prints its line.
    pub(crate) fn add(&mut self, case: &Case, counted: u64, baseline: Option<u64>) {
        let regressed = baseline.is_some_and(|baseline| exceeds(counted, baseline));
        self.regressions += u32::from(regressed);
        let remark = match (regressed, case.goal.is_some_and(|goal| counted > goal)) {
            (true, _) => "  REGRESSION",
            (false, true) => "  over the goal",
            (false, false) => "",
        };
        println!(
            "{:<22} {counted:>12} {:>12} {:>8} {:>12}{remark}",
            case.name,
            baseline.map_or_else(|| "none".to_owned(), |baseline| baseline.to_string()),
            baseline.map_or_else(String::new, |baseline| change(counted, baseline)),
            case.goal.map_or_else(String::new, |goal| goal.to_string()),
        );
    }

    /// Fails for a regression. A goal that is missed is a fact and no reason to stop others: docs/performance.md tells.
    pub(crate) fn verdict(&self) -> ExitCode {
        if self.regressions == 0 {
            return ExitCode::SUCCESS;
        }
        println!(
            "\n{} case(s) cost more than {TOLERANCE_PERCENT} % over the baseline. If that is the price of something \
             worth it: cargo xtask bench --save-baseline, and say so in the commit.",
            self.regressions
        );
        ExitCode::FAILURE
    }
}

fn exceeds(counted: u64, baseline: u64) -> bool {
    counted * 100 > baseline * (100 + TOLERANCE_PERCENT)
}

fn change(counted: u64, baseline: u64) -> String {
    let percent = (counted as f64 / baseline.max(1) as f64 - 1.0) * 100.0;
    format!("{percent:+.1} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_tolerated_and_not_one_instruction_beyond() {
        assert!(!exceeds(105, 100));
        assert!(exceeds(106, 100));
        assert!(!exceeds(50, 100));
    }

    #[test]
    fn a_change_has_its_sign() {
        assert_eq!(change(110, 100), "+10.0 %");
        assert_eq!(change(95, 100), "-5.0 %");
    }
}
