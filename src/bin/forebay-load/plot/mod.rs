//! A picture of latencies: for each curve how long the given share of operations took at
//! most, both axes logarithmic, so that the rare slow ones are seen as well as the many.
//!
//! This file lays the picture out as plain shapes; `svg` and `png` write them.

mod png;
mod svg;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::curve::Curve;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 64.0;

/// Curves in one picture: as many as there are colours that all readers tell apart.
pub(crate) const CURVES_MAX: usize = COLOURS.len();

/// Okabe and Ito's colours, which colour-blind readers tell apart.
const COLOURS: [Colour; 7] = [
    Colour(0, 114, 178),
    Colour(213, 94, 0),
    Colour(0, 158, 115),
    Colour(204, 121, 167),
    Colour(230, 159, 0),
    Colour(86, 180, 233),
    Colour(0, 0, 0),
];
const INK: Colour = Colour(51, 51, 51);
const GRID: Colour = Colour(221, 221, 221);
const FINE_GRID: Colour = Colour(242, 242, 242);

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Colour(u8, u8, u8);

/// Where a text has its given point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// What a picture is made of; in pixels from the upper left.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
        width: f64,
    },
    /// At the height of its base line.
    Text {
        at: (f64, f64),
        anchor: Anchor,
        text: String,
        colour: Colour,
    },
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlotError {
    #[error("{}: a plot's name ends in .svg or .png", .0.display())]
    Format(PathBuf),
    #[error("a plot has at most {CURVES_MAX} curves")]
    TooManyCurves,
    #[error("nothing was measured that could be plotted")]
    Empty,
    #[error("{}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
}

/// What a file is to hold, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

fn format_of(path: &Path) -> Result<Format, PlotError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "svg" => Ok(Format::Svg),
        "png" => Ok(Format::Png),
        _ => Err(PlotError::Format(path.to_owned())),
    }
}

/// Whether the name is one that a plot can have: asked before a run, not behind it.
pub(crate) fn check_name(path: &Path) -> Result<(), PlotError> {
    format_of(path).map(|_| ())
}

/// Writes the picture of the curves.
///
/// # Errors
/// The name is of no format that is known, there is nothing to show, or the file cannot be
/// written.
pub(crate) fn write(path: &Path, title: &str, curves: &[Curve]) -> Result<(), PlotError> {
    let format = format_of(path)?;
    if curves.len() > CURVES_MAX {
        return Err(PlotError::TooManyCurves);
    }
    let shapes = lay_out(title, curves).ok_or(PlotError::Empty)?;
    let bytes = match format {
        Format::Svg => svg::encode(&shapes).into_bytes(),
        Format::Png => png::encode(&shapes),
    };
    fs::write(path, bytes).map_err(|error| PlotError::Write { path: path.to_owned(), error })
}

/// The ranges of both axes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axes {
    /// The number of nines at the right end.
    nines: f64,
    /// Powers of ten of microseconds at the lower and the upper end.
    decades: (f64, f64),
}

impl Axes {
    fn of(curves: &[Curve]) -> Option<Self> {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let least = points().map(|point| point.us).fold(f64::INFINITY, f64::min);
        let most = points().map(|point| point.us).fold(0.0, f64::max);
        if !least.is_finite() || least <= 0.0 {
            return None;
        }
        let nines = points().map(|point| point.nines).fold(1.0, f64::max);
        let decades = (least.log10().floor(), most.log10().ceil());
        let upper = if decades.1 > decades.0 { decades.1 } else { decades.0 + 1.0 };
        Some(Self { nines: nines.ceil(), decades: (decades.0, upper) })
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines / self.nines
    }

    fn y(&self, us: f64) -> f64 {
        let (lower, upper) = self.decades;
        let share = (us.log10() - lower) / (upper - lower);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }
}

fn lay_out(title: &str, curves: &[Curve]) -> Option<Vec<Shape>> {
    let axes = Axes::of(curves)?;
    let mut shapes = Vec::new();
    let text =
        |at: (f64, f64), anchor, text: String, colour| Shape::Text { at, anchor, text, colour };
    grid(&axes, &mut shapes);
    shapes.push(text((LEFT, TOP - 26.0), Anchor::Start, title.to_owned(), INK));
    let below = HEIGHT - 16.0;
    let label = "share of operations that took no longer".to_owned();
    shapes.push(text(((LEFT + WIDTH - RIGHT) / 2.0, below), Anchor::Middle, label, INK));
    for (index, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
        let points = curve.points.iter().map(|point| (axes.x(point.nines), axes.y(point.us)));
        shapes.push(Shape::Line { points: points.collect(), colour, width: 2.0 });
        let line = TOP + 20.0 + 20.0 * index as f64;
        let sample = vec![(LEFT + 14.0, line - 5.0), (LEFT + 38.0, line - 5.0)];
        shapes.push(Shape::Line { points: sample, colour, width: 3.0 });
        shapes.push(text((LEFT + 46.0, line), Anchor::Start, curve.name.clone(), INK));
    }
    Some(shapes)
}

fn grid(axes: &Axes, shapes: &mut Vec<Shape>) {
    let (left, right) = (axes.x(0.0), axes.x(axes.nines));
    let (bottom, top) = (HEIGHT - BOTTOM, TOP);
    let mut line = |from, to, colour| {
        shapes.push(Shape::Line { points: vec![from, to], colour, width: 1.0 });
    };
    let (lower, upper) = (axes.decades.0 as i32, axes.decades.1 as i32);
    for decade in lower..upper {
        for step in 2..10 {
            let y = axes.y(10_f64.powi(decade) * f64::from(step));
            line((left, y), (right, y), FINE_GRID);
        }
    }
    for decade in lower..=upper {
        let y = axes.y(10_f64.powi(decade));
        line((left, y), (right, y), GRID);
    }
    let nines: Vec<f64> = [0.0, 0.5_f64.log10().abs()]
        .into_iter()
        .chain((1..=axes.nines as u32).map(f64::from))
        .collect();
    for count in &nines {
        line((axes.x(*count), bottom), (axes.x(*count), top), GRID);
    }
    for decade in lower..=upper {
        let at = (left - 8.0, axes.y(10_f64.powi(decade)) + 5.0);
        let text = time_text(decade);
        shapes.push(Shape::Text { at, anchor: Anchor::End, text, colour: INK });
    }
    for count in nines {
        let at = (axes.x(count), bottom + 20.0);
        let text = share_text(count);
        shapes.push(Shape::Text { at, anchor: Anchor::Middle, text, colour: INK });
    }
}

/// A power of ten of microseconds.
fn time_text(decade: i32) -> String {
    let (power, unit) = match decade {
        ..0 => return format!("{} ns", 10_f64.powi(decade + 3)),
        0..3 => (decade, "µs"),
        3..6 => (decade - 3, "ms"),
        _ => (decade - 6, "s"),
    };
    format!("{} {unit}", 10_u64.pow(power.unsigned_abs()))
}

/// `99.9 %` for three nines.
fn share_text(nines: f64) -> String {
    let digits = if nines > 2.0 { nines.round() as usize - 2 } else { 0 };
    let percent = 100.0 - 100.0 / 10_f64.powf(nines);
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Point;

    fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        let points = points.iter().map(|(nines, us)| Point { nines: *nines, us: *us }).collect();
        Curve { name: name.to_owned(), points }
    }

    #[test]
    fn axes_hold_every_point_in_whole_decades() {
        let curves =
            [curve("a", &[(0.0, 37.0), (3.2, 900.0)]), curve("b", &[(0.0, 50.0), (2.0, 2e4)])];
        let axes = Axes::of(&curves).expect("points");
        assert_eq!(axes, Axes { nines: 4.0, decades: (1.0, 5.0) });
        assert_eq!(axes.y(10.0), HEIGHT - BOTTOM);
        assert_eq!(axes.y(1e5), TOP);
        assert_eq!((axes.x(0.0), axes.x(4.0)), (LEFT, WIDTH - RIGHT));
        // A single value still has an axis.
        assert_eq!(Axes::of(&[curve("a", &[(0.0, 100.0)])]).expect("one").decades, (2.0, 3.0));
        assert_eq!(Axes::of(&[curve("a", &[])]), None);
    }

    #[test]
    fn labels_are_what_people_say() {
        let times: Vec<_> = (-1..8).map(time_text).collect();
        let expected =
            ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];
        assert_eq!(times, expected);
        let shares: Vec<_> = [0.0, 1.0, 2.0, 3.0, 5.0].map(share_text).to_vec();
        assert_eq!(shares, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
        assert_eq!(share_text(0.5_f64.log10().abs()), "50 %");
    }

    #[test]
    fn the_name_tells_the_format() {
        for (name, known) in [("a.svg", true), ("a.PNG", true), ("a.pdf", false), ("svg", false)] {
            assert_eq!(check_name(Path::new(name)).is_ok(), known, "{name}");
        }
    }

    #[test]
    fn both_formats_are_written_with_every_curve() {
        let directory = tempfile::tempdir().expect("directory");
        let curves = [
            curve("quiet & calm", &[(0.0, 37.0), (1.0, 90.0), (3.2, 900.0)]),
            curve("storm", &[(0.0, 50.0), (2.0, 20_000.0)]),
        ];
        let svg = directory.path().join("plot.svg");
        write(&svg, "a <title>", &curves).expect("written");
        let text = fs::read_to_string(svg).expect("read");
        for part in ["<svg ", "quiet &amp; calm", "storm", "a &lt;title&gt;", "99.9 %", "10 µs"] {
            assert!(text.contains(part), "{part}");
        }
        let png = directory.path().join("plot.png");
        write(&png, "a <title>", &curves).expect("written");
        let bytes = fs::read(png).expect("read");
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.len() > 2_000, "{}", bytes.len());
    }
}
