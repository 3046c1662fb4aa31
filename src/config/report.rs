//! Collects findings while a file is walked.

use std::ops::Range;
use std::path::Path;

use super::finding::{Finding, Place, Severity};

/// The findings so far, and what it takes to place the next.
pub(super) struct Report<'t> {
    path: &'t Path,
    lines: Lines<'t>,
    findings: Vec<Finding>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, path: &'t Path) -> Self {
        Self { path, lines: Lines::new(text), findings: Vec::new() }
    }

    /// Where `span` (in bytes) begins.
    pub(super) fn place(&self, span: Range<usize>, key: String) -> Place {
        let (line, column) = self.lines.position(span.start);
        Place { line, column, key }
    }

    pub(super) fn error(&mut self, place: &Place, message: String, help: Option<String>) {
        self.push(Severity::Error, place, message, help);
    }

    pub(super) fn warning(&mut self, place: &Place, message: String, help: Option<String>) {
        self.push(Severity::Warning, place, message, help);
    }

    fn push(&mut self, severity: Severity, place: &Place, message: String, help: Option<String>) {
        let finding = Finding::new(severity, self.path, place, message);
        self.findings.push(Finding { help, ..finding });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    /// In the order of the text; findings about the whole file come first.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| (finding.line, finding.column));
        self.findings
    }
}

/// Turns byte offsets into lines and columns.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Line and column in characters, both from 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        // A parser's span ends on character boundaries; if not, count bytes.
        let characters =
            self.text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        (line, characters + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let lines = Lines::new("é = 1\nb = 2\n");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(3), (1, 3), "é is two bytes and one character");
        assert_eq!(lines.position(7), (2, 1));
        assert_eq!(lines.position(13), (3, 1), "the end of the text");
        assert_eq!(lines.position(99).0, 3, "beyond the end");
    }
}
