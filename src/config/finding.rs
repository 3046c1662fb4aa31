//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, or suspicious, in a configuration file.
///
/// Displayed on one line, as compilers do:
///
/// ```text
/// forebay.toml:12:1: error: listener[0].certificats: unknown key; did you mean `certificates`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it keeps the program from starting.
    pub severity: Severity,
    /// The configuration file.
    pub path: PathBuf,
    /// Line, from 1; 0 if the finding is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 if the finding is about the file as a whole.
    pub column: usize,
    /// The key's path, such as `listener[1].certificates` (the first listener is 0);
    /// empty if no key is concerned.
    pub key: String,
    /// What is wrong, with what was found.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

impl Finding {
    /// A finding at `place` in the file at `path`.
    pub fn new(severity: Severity, path: &Path, place: &Place, message: impl Into<String>) -> Self {
        Self {
            severity,
            path: path.to_path_buf(),
            line: place.line,
            column: place.column,
            key: place.key.clone(),
            message: message.into(),
            help: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Whether it keeps the program from starting.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        write!(formatter, ": {}: ", self.severity)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(formatter, "; {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Where in a configuration file something is written. The default is "nowhere": for
/// values that did not come from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Line, from 1; 0 if nowhere.
    pub line: usize,
    /// Column in characters, from 1; 0 if nowhere.
    pub column: usize,
    /// The key's path.
    pub key: String,
}

/// A value together with where it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

impl<T> From<T> for Located<T> {
    /// A value that did not come from a file.
    fn from(value: T) -> Self {
        Self { value, place: Place::default() }
    }
}
