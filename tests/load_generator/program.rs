//! The load generator as a script runs it.

use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run left behind.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// A command that has yet to run.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-load"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn load(arguments: &[&str]) -> Run {
    let output = command(arguments).output().expect("forebay-load runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code(), output: text(&output.stdout), errors: text(&output.stderr) }
}

/// Runs it with `--json`, expects success, and returns the object.
#[track_caller]
pub(crate) fn report(arguments: &[&str]) -> Value {
    let run = load(&[arguments, &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{}\n{}", run.output, run.errors);
    run.json()
}

impl Run {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.output, self.errors))
    }
}

/// A number of the report, by its path, such as `/latency_us/p99`.
#[track_caller]
pub(crate) fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number {path} in {report}"))
}

/// A text of the report, by its path.
#[track_caller]
pub(crate) fn text<'a>(report: &'a Value, path: &str) -> &'a str {
    let value = report.pointer(path).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("no text {path} in {report}"))
}

/// Fails the test unless the quantiles are there and in order.
#[track_caller]
pub(crate) fn assert_plausible(latency: &Value) {
    let names = ["/minimum", "/p50", "/p90", "/p99", "/p99_9", "/maximum"];
    let values = names.map(|name| number(latency, name));
    assert!(values[0] > 0.0 && values.is_sorted(), "{latency}");
    let mean = number(latency, "/mean");
    assert!(values[0] <= mean && mean <= values[5], "{latency}");
}
