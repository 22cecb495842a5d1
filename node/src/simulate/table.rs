//! Figures as text: a table for people, CSV for programs.

use super::Run;
use std::fmt::Write as _;
use std::time::Duration;

/// The columns of both.
const COLUMNS: [&str; 9] = [
    "policy",
    "interval-ms",
    "mean-ms",
    "p50-ms",
    "p99-ms",
    "max/mean",
    "jain",
    "forwarded-%",
    "connections",
];

/// A table with aligned columns.
pub(super) fn text(runs: &[Run]) -> String {
    let rows: Vec<[String; 9]> =
        std::iter::once(COLUMNS.map(str::to_owned)).chain(runs.iter().map(row)).collect();
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// Comma-separated values (RFC 4180, but with line feeds); no cell needs quotes.
pub(super) fn csv(runs: &[Run]) -> String {
    let lines = std::iter::once(COLUMNS.join(",")).chain(runs.iter().map(|run| row(run).join(",")));
    lines.map(|line| line + "\n").collect()
}

fn row(run: &Run) -> [String; 9] {
    let figures = &run.figures;
    let interval = match run.experiment.method.needs_reports() {
        true => run.experiment.interval.as_millis().to_string(),
        false => "-".to_owned(),
    };
    [
        run.experiment.method.label().to_owned(),
        interval,
        milliseconds(figures.mean),
        milliseconds(figures.p50),
        milliseconds(figures.p99),
        format!("{:.2}", figures.max_over_mean),
        format!("{:.3}", figures.jain),
        format!("{:.1}", figures.forwarded * 100.0),
        figures.connections.to_string(),
    ]
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_sim::balance::{Experiment, Figures, Method};

    fn runs() -> [Run; 2] {
        let figures = Figures {
            connections: 1234,
            mean: Duration::from_micros(101_250),
            p50: Duration::from_millis(70),
            p99: Duration::from_millis(460),
            max_over_mean: 1.25,
            jain: 0.9876,
            forwarded: 0.5,
        };
        [
            Run { experiment: Experiment { method: Method::Wlc, ..Experiment::default() }, figures },
            Run { experiment: Experiment::default(), figures },
        ]
    }

    #[test]
    fn columns_are_aligned() {
        let text = text(&runs());

        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [lengths[0]; 3], "{text}");
        assert!(text.contains("\nwlc  "), "{text}");
    }

    #[test]
    fn values_are_separated_by_commas() {
        let csv = csv(&runs());

        let expected = "local-estimates,100,101.2,70.0,460.0,1.25,0.988,50.0,1234";
        assert_eq!(csv.lines().last(), Some(expected));
        assert_eq!(csv.lines().nth(1).map(|line| line.starts_with("wlc,-,")), Some(true));
    }
}
