//! Pictures: of a run that has just ended, and of several that were kept.

use std::path::{Path, PathBuf};

use crate::arguments::{OutputArguments, PlotArguments};
use crate::curve::{self, Curve, CurveError};
use crate::plot::{self, PlotError};
use crate::report::Report;
use crate::tally::Latencies;

/// A picture or a file could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Plot(#[from] PlotError),
    #[error(transparent)]
    Curve(#[from] CurveError),
}

/// Draws the files of several runs.
pub(crate) fn run(arguments: &PlotArguments) -> Result<(), KeepError> {
    let read = |named: &crate::arguments::NamedFile| Curve::read_file(&named.name, &named.file);
    let curves: Vec<Curve> = arguments.curves.iter().map(read).collect::<Result<_, _>>()?;
    Ok(plot::write(&arguments.picture, &arguments.title, &curves)?)
}

/// Keeps the latencies of a run as it was asked to.
pub(crate) fn keep(
    report: &Report,
    latencies: &[(&'static str, Latencies)],
    output: &OutputArguments,
) -> Result<(), KeepError> {
    if let Some(path) = &output.histogram {
        for (name, latencies) in latencies {
            curve::write_file(&file_of(path, name, report.mode), latencies)?;
        }
    }
    if let Some(path) = &output.plot {
        let curves: Vec<Curve> =
            latencies.iter().map(|(name, latencies)| Curve::new(name, latencies)).collect();
        let title = format!("forebay-load {} {}", report.mode, report.address);
        plot::write(path, &title, &curves)?;
    }
    Ok(())
}

/// With several curves each has a file of its own: `a.hgrm` becomes `a-quiet.hgrm`.
fn file_of(path: &Path, name: &str, mode: &str) -> PathBuf {
    if mode != "mixed" {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path
        .extension()
        .map_or(String::new(), |extension| format!(".{}", extension.to_string_lossy()));
    path.with_file_name(format!("{stem}-{name}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_phases_of_a_mixed_run_have_a_file_each() {
        let file = |mode| file_of(Path::new("some/a.hgrm"), "quiet", mode);
        assert_eq!(file("mixed"), Path::new("some/a-quiet.hgrm"));
        assert_eq!(file("requests"), Path::new("some/a.hgrm"));
    }
}
