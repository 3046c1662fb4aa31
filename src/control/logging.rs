//! The log: text lines to standard error, written by one thread of its own.
//!
//! Whoever logs formats its line and hands it to a bounded queue. When the reader of
//! standard error is slower than we are, lines are dropped and counted
//! (`forebay_log_lines_dropped_total`), never waited for.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for the writer thread.
const LINES_WAITING_MAX: usize = 8_192;

/// Environment variables that override the configured level, the first one set wins.
/// Both take what `tracing_subscriber::EnvFilter` takes: `debug`, or
/// `warn,forebay::control=debug`.
const LEVEL_VARIABLES: [&str; 2] = ["FOREBAY_LOG", "RUST_LOG"];

/// The running log. Dropping it writes out what is waiting (at most about a second).
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not one that we know.
    #[error(
        "{origin}: {level:?} is not a log level ({reason}); use error, warn, info, debug or trace"
    )]
    Level {
        /// Where the level was set.
        origin: String,
        /// What was set.
        level: String,
        /// The parser's words.
        reason: String,
    },
    /// The process already has a log.
    #[error("the log is already set up")]
    AlreadySetUp,
}

/// Starts the log with `level` unless the environment says otherwise.
///
/// # Errors
/// The level does not parse, or the process already has a log.
pub fn start(level: Level) -> Result<Log, LogError> {
    let filter = filter(level, |name| std::env::var(name).ok())?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer)
        .try_init()
        .map_err(|_| LogError::AlreadySetUp)?;
    Ok(Log { dropped, _writer: guard })
}

impl Log {
    /// The count of lines dropped because the writer was behind.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

fn filter(level: Level, variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, LogError> {
    let from_environment = LEVEL_VARIABLES.iter().find_map(|name| {
        let value = variable(name)?;
        (!value.is_empty()).then(|| (format!("environment variable {name}"), value))
    });
    let (origin, level) =
        from_environment.unwrap_or_else(|| ("log.level".to_owned(), level.to_string()));
    EnvFilter::builder().parse(&level).map_err(|error| LogError::Level {
        origin,
        level,
        reason: error.to_string(),
    })
}

/// What `action` logs on this thread, as text without colours.
#[cfg(test)]
pub(in crate::control) fn captured(action: impl FnOnce()) -> String {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, action);
    let bytes = lines.0.lock().expect("one thread").clone();
    String::from_utf8(bytes).expect("log lines are UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_level_holds_when_the_environment_is_silent() {
        let filter = filter(Level::WARN, |_| None).expect("a level");
        assert_eq!(filter.to_string(), "warn");
    }

    #[test]
    fn our_own_variable_wins_over_the_common_one() {
        let filter = filter(Level::WARN, |name| match name {
            "FOREBAY_LOG" => Some("debug".to_owned()),
            _ => Some("trace".to_owned()),
        });
        assert_eq!(filter.expect("a level").to_string(), "debug");
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let filter = filter(Level::INFO, |_| Some(String::new())).expect("a level");
        assert_eq!(filter.to_string(), "info");
    }

    #[test]
    fn a_bad_level_says_where_it_came_from_and_what_to_write() {
        let error =
            filter(Level::INFO, |name| (name == "RUST_LOG").then(|| "forebay=loud".to_owned()))
                .expect_err("not a level");
        let text = error.to_string();
        assert!(text.contains("RUST_LOG") && text.contains("loud"), "{text}");
        assert!(text.contains("use error, warn, info, debug or trace"), "{text}");
    }
}
