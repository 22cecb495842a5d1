//! A chart of 99th percentiles over report intervals, both logarithmic, as SVG.

use super::Run;
use dpr_sim::balance::Method;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;
/// Colours that the colour-blind can tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7"];
/// Shortest distance between two labels, pixels.
const LABEL_DISTANCE: f64 = 15.0;

/// One policy's line, in milliseconds both ways.
struct Line {
    label: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// A logarithmic axis from a range of values to a range of pixels.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis that begins and ends at powers of ten around `values`.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::MAX, f64::min).clamp(0.001, 1e9);
        let most = values.fold(0.001, f64::max);
        let (least, most) = (least.log10().floor(), most.log10().ceil());
        Self { least, most: most.max(least + 1.0), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(0.001).log10() - self.least) / (self.most - self.least);
        self.from + share * (self.to - self.from)
    }

    /// Powers of ten on the axis.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        // Both are small whole numbers.
        (self.least as i32..=self.most as i32).map(|exponent| 10_f64.powi(exponent))
    }
}

/// The chart of all runs; policies without reports are lines from end to end.
pub(super) fn svg(runs: &[Run]) -> String {
    let lines = lines(runs);
    let values = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Axis::around(values().map(|(interval, _)| interval), LEFT, WIDTH - RIGHT);
    let y = Axis::around(values().map(|(_, p99)| p99), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    write_axes(&mut svg, &x, &y);
    write_lines(&mut svg, &lines, &x, &y);
    svg.push_str("</svg>\n");
    svg
}

fn lines(runs: &[Run]) -> Vec<Line> {
    let interval_ms = |run: &Run| run.experiment.interval.as_secs_f64() * 1000.0;
    let p99_ms = |run: &Run| run.figures.p99.as_secs_f64() * 1000.0;
    let least = runs.iter().map(interval_ms).fold(f64::MAX, f64::min);
    let most = runs.iter().map(interval_ms).fold(0.0, f64::max);
    let mut lines = Vec::new();
    for (method, colour) in Method::ALL.into_iter().zip(COLOURS) {
        let of_method = runs.iter().filter(|run| run.experiment.method == method);
        let points: Vec<_> = match method.needs_reports() {
            true => of_method.map(|run| (interval_ms(run), p99_ms(run))).collect(),
            false => of_method.flat_map(|run| [least, most].map(|at| (at, p99_ms(run)))).collect(),
        };
        if !points.is_empty() {
            lines.push(Line { label: method.label(), colour, points });
        }
    }
    lines
}

fn write_axes(svg: &mut String, x: &Axis, y: &Axis) {
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    for value in x.ticks() {
        let at = x.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            bottom + 16.0
        );
    }
    for value in y.ticks() {
        let at = y.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    let middle = (left + right) / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">milliseconds between load reports</text>\n\
         <text x=\"{left}\" y=\"18\">99th percentile of response time, milliseconds</text>",
        HEIGHT - 12.0
    );
}

fn write_lines(svg: &mut String, lines: &[Line], x: &Axis, y: &Axis) {
    for line in lines {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(interval, p99)| format!("{:.1},{:.1}", x.place(*interval), y.place(*p99)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            points.join(" "),
            line.colour
        );
    }
    let mut ends: Vec<(f64, &Line)> =
        lines.iter().filter_map(|line| Some((y.place(line.points.last()?.1), line))).collect();
    ends.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut free_from = TOP;
    for (at, line) in ends {
        let at = at.max(free_from);
        free_from = at + LABEL_DISTANCE;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
            WIDTH - RIGHT + 8.0,
            at + 4.0,
            line.colour,
            line.label
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpr_director::PolicyKind;
    use dpr_sim::balance::{Experiment, Figures};
    use std::time::Duration;

    #[test]
    fn every_policy_has_its_line_and_its_label() {
        let run = |method, interval_ms, p99_ms| Run {
            experiment: Experiment {
                method,
                interval: Duration::from_millis(interval_ms),
                ..Experiment::default()
            },
            figures: Figures { p99: Duration::from_millis(p99_ms), ..Figures::default() },
        };
        let lightest = Method::Policy(PolicyKind::Lightest);
        let runs = [run(Method::Wlc, 10, 500), run(lightest, 10, 600), run(lightest, 1000, 9000)];

        let svg = svg(&runs);

        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">wlc</text>") && svg.contains(">lightest</text>"));
        // From the left end of the axis, 10 ms, to its right end, 1 s.
        assert!(svg.contains("points=\"70.0,") && svg.contains(" 610.0,"), "{svg}");
    }
}
