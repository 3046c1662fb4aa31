//! A distribution of latencies, as a curve to be plotted and as a file to be kept.
//!
//! The file is what HdrHistogram's tools write and plot (`.hgrm`: value, percentile, count
//! up to there, 1/(1-percentile)); values are microseconds.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::tally::Latencies;

/// Points for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 8;
/// Shares are not told apart beyond this many nines.
const NINES_MAX: f64 = 9.0;

/// How long a share of the operations took at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// The share, by its nines: 2 is 99 %.
    pub(crate) nines: f64,
    /// Microseconds.
    pub(crate) us: f64,
}

/// A named distribution.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// A file of a distribution cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CurveError {
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    #[error("{}: line {line} is not \"value percentile count ...\"", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
}

impl Curve {
    pub(crate) fn new(name: &str, latencies: &Latencies) -> Self {
        let rows = rows(latencies);
        let last = nines_of_last(latencies.0.len());
        let point = |row: &Row| Point { nines: nines(row.quantile).min(last), us: row.us };
        Self { name: name.to_owned(), points: rows.iter().map(point).collect() }
    }

    /// Reads a file that [`write_file`] or another of HdrHistogram's programs wrote.
    pub(crate) fn read_file(name: &str, path: &Path) -> Result<Self, CurveError> {
        let text = fs::read_to_string(path)
            .map_err(|error| CurveError::File { path: path.to_owned(), error })?;
        let mut points = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next();
            if first.is_none_or(|first| first.starts_with('#') || first == "Value") {
                continue;
            }
            let wrong = || CurveError::Line { path: path.to_owned(), line: index + 1 };
            let number = |field: Option<&str>| -> Result<f64, CurveError> {
                field.and_then(|field| field.parse().ok()).ok_or_else(wrong)
            };
            let us = number(first)?;
            let quantile = number(fields.next())?;
            let count = number(fields.next())?;
            points.push(Point { nines: nines(quantile).min(nines_of_last(count as u64)), us });
        }
        Ok(Self { name: name.to_owned(), points })
    }
}

/// Writes the distribution.
pub(crate) fn write_file(path: &Path, latencies: &Latencies) -> Result<(), CurveError> {
    let mut text = format!(
        "{:>14} {:>18} {:>12} {:>18}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for Row { us, quantile, count } in rows(latencies) {
        let _ = if quantile < 1.0 {
            writeln!(
                text,
                "{us:>14.3} {quantile:>18.12} {count:>12} {:>18.2}",
                1.0 / (1.0 - quantile)
            )
        } else {
            writeln!(text, "{us:>14.3} {quantile:>18.12} {count:>12}")
        };
    }
    let histogram = &latencies.0;
    let us = |nanoseconds: f64| nanoseconds / 1e3;
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]",
        us(histogram.mean()),
        us(histogram.stdev()),
        us(histogram.max() as f64),
        histogram.len(),
    );
    fs::write(path, text).map_err(|error| CurveError::File { path: path.to_owned(), error })
}

struct Row {
    us: f64,
    quantile: f64,
    count: u64,
}

fn rows(latencies: &Latencies) -> Vec<Row> {
    let mut count = 0;
    latencies
        .0
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            count += step.count_since_last_iteration();
            let us = step.value_iterated_to() as f64 / 1e3;
            Row { us, quantile: step.quantile_iterated_to(), count }
        })
        .collect()
}

fn nines(quantile: f64) -> f64 {
    if quantile < 1.0 { -(1.0 - quantile).log10() } else { NINES_MAX }
}

/// The slowest of so many operations stands for the last share that can be told.
fn nines_of_last(count: u64) -> f64 {
    (count.max(1) as f64).log10().min(NINES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn latencies() -> Latencies {
        let mut latencies = Latencies::default();
        for us in 1..=1_000 {
            latencies.record(Duration::from_micros(us));
        }
        latencies
    }

    #[test]
    fn a_curve_goes_from_the_fastest_to_the_slowest() {
        let curve = Curve::new("a", &latencies());
        assert!(
            curve
                .points
                .is_sorted_by(|left, right| { left.nines <= right.nines && left.us <= right.us })
        );
        let last = curve.points.last().expect("points");
        assert!((last.nines - 3.0).abs() < 1e-9 && (last.us - 1_000.0).abs() < 2.0, "{last:?}");
        let median = curve.points.iter().find(|point| point.nines >= 0.301).expect("the median");
        assert!((median.us - 500.0).abs() < 10.0, "{median:?}");
        assert!(Curve::new("empty", &Latencies::default()).points.is_empty());
    }

    #[test]
    fn a_file_gives_the_same_curve_again() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("a.hgrm");
        write_file(&path, &latencies()).expect("written");
        let (written, read) = (Curve::new("a", &latencies()), Curve::read_file("a", &path));
        let read = read.expect("read");
        assert_eq!(written.points.len(), read.points.len());
        for (left, right) in written.points.iter().zip(&read.points) {
            assert!((left.nines - right.nines).abs() < 1e-6 && (left.us - right.us).abs() < 1e-3);
        }
    }

    #[test]
    fn a_file_of_something_else_is_an_error_that_names_the_line() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("a.hgrm");
        fs::write(&path, "1.0 0.5 1\nnonsense\n").expect("written");
        let error = Curve::read_file("a", &path).expect_err("nonsense").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
