//! What commands print to standard output.
//!
//! `println!` panics when nobody reads any more (`forebay check | head -1`), and a panic
//! would end a service that only announced itself: here it is no failure, because who
//! closed the pipe has seen what he wanted.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes `text` and a line's end.
pub(super) fn say(text: impl Display) {
    say_to(io::stdout().lock(), text);
}

/// Writes rows with their columns below each other.
pub(super) fn table<const COLUMNS: usize>(rows: Vec<[String; COLUMNS]>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or_default());
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn say_to(mut output: impl Write, text: impl Display) {
    let written = writeln!(output, "{text}").and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("forebay: cannot write to standard output: {error}");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::say_to;

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        say_to(ours, "more than anybody wants to read");
    }
}
