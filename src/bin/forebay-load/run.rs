//! A run with one crew and one window: what most modes are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::thread;
use std::time::{Duration, Instant};

use forebay::control::limits::raise_descriptor_limit;

use crate::arguments::{LoadArguments, OutputArguments, TargetArguments, ThreadsArguments};
use crate::connection::Target;
use crate::crew::{Crew, CrewError, CrewResult, Placement, Task};
use crate::http::Request;
use crate::progress::ProgressLine;
use crate::report::{ClientReport, Part, Report, ServerReport, TlsReport, rounded};
use crate::server_process::{CpuTime, Server, ServerProcessError};
use crate::tally::{Latencies, Tally, Window};
use crate::tls::TlsError;
use crate::work::{Schedule, Work, handle_interrupts, is_interrupted};

/// How long to measure if neither a time nor a number is given.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// A run of a given number of operations ends after this time in any case.
const OPERATIONS_DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Descriptors that are not connections: standard streams, one epoll set a thread, files.
const DESCRIPTORS_RESERVED: u64 = 64;
/// Share of a CPU from which on a thread may be what limits the result.
pub(crate) const BUSY_SHARE: f64 = 0.9;
/// From the order to begin until the first operation is due.
pub(crate) const LEAD: Duration = Duration::from_millis(5);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Server(#[from] ServerProcessError),
    #[error(transparent)]
    Crew(#[from] CrewError),
    #[error("cannot install the handler of Ctrl-C: {0}")]
    Signal(io::Error),
    #[error(
        "--connections {connections} are more than the descriptor limit allows ({limit}, of which \
         {DESCRIPTORS_RESERVED} are kept for other things): raise it (ulimit -n) or ask for fewer"
    )]
    Descriptors {
        /// What was asked for.
        connections: usize,
        /// The limit in force.
        limit: u64,
    },
}

/// A report and what does not fit into it.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) tally: Tally,
    /// Latencies, by what they are of.
    pub(crate) curves: Vec<(&'static str, Latencies)>,
}

/// Runs `work` as the arguments say.
pub(crate) fn run(
    mode: &'static str,
    target: &TargetArguments,
    load: &LoadArguments,
    threads: &ThreadsArguments,
    output: &OutputArguments,
    work: Work,
    resume: bool,
) -> Result<Outcome, RunError> {
    let environment = Environment::begin(output)?;
    environment.check_connections(load.connections)?;
    let task = task(target, work, resume)?;
    let placement = placement(threads);
    let crew = Crew::start(&task, &placement)?;
    let line = ProgressLine::start(output.quiet, crew.progress());

    let memory_before = environment.memory_bytes()?;
    let established = crew.prepare_all()?;
    let memory_after = environment.memory_bytes()?;

    let begin = Instant::now() + LEAD;
    let start = begin + load.warm_up;
    let duration = load.duration.unwrap_or(match load.operations {
        None => DEFAULT_DURATION,
        Some(_) => OPERATIONS_DURATION_MAX,
    });
    let window = Window { start, end: start + duration };
    let budget = load
        .operations
        .map(|operations| Arc::new(AtomicI64::new(i64::try_from(operations).unwrap_or(i64::MAX))));
    let schedule = Schedule { begin, windows: vec![window], stop: window.end, budget };
    crew.run(&schedule)?;
    sleep_until(window.start);
    let cpu_before = environment.cpu_time()?;
    let mut result = None;
    if schedule.budget.is_some() {
        result = Some(crew.results()?);
    } else {
        sleep_until(window.end);
    }
    let cpu_after = environment.cpu_time()?;
    let measured = Instant::now().min(window.end).saturating_duration_since(window.start);
    let result = match result {
        Some(result) => result,
        None => crew.results()?,
    };
    drop(line);
    let CrewResult { windows, outside } = result;
    let result = windows.into_iter().next().unwrap_or_default();

    let tally = &result.tally;
    let mut report = Report {
        mode,
        address: target.place.text.clone(),
        connections: load.connections,
        tls: TlsReport::new(tally).or_else(|| TlsReport::new(&outside)),
        part: Part::new(tally, measured, task.work.rate),
        idle: None,
        mixed: None,
        client: ClientReport::new(&result, measured, crew.threads()),
        server: None,
        warnings: Vec::new(),
    };
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let mut server = ServerReport::new(after.since(before), tally, measured);
        server.memory_bytes_per_connection = growth(memory_before, memory_after, established);
        report.server = Some(server);
    }
    report.warnings = warnings(&report, tally);
    let curves = vec![("latency", result.tally.latencies.clone())];
    Ok(Outcome { report, tally: result.tally, curves })
}

/// What a run has to do with beside its own threads.
pub(crate) struct Environment {
    server: Option<Server>,
    /// Descriptors that this process may have open.
    pub(crate) descriptors: u64,
}

impl Environment {
    /// Finds the server's processes, raises the limit on descriptors as far as it may be,
    /// and lets Ctrl-C end a run early.
    pub(crate) fn begin(output: &OutputArguments) -> Result<Self, RunError> {
        let named = !output.server_pid.is_empty();
        let server = named.then(|| Server::new(&output.server_pid)).transpose()?;
        handle_interrupts().map_err(RunError::Signal)?;
        Ok(Self { server, descriptors: raise_descriptor_limit() })
    }

    /// Connections that fit.
    pub(crate) fn connections_max(&self) -> usize {
        usize::try_from(self.descriptors.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX)
    }

    pub(crate) fn check_connections(&self, connections: usize) -> Result<(), RunError> {
        if connections > self.connections_max() {
            return Err(RunError::Descriptors { connections, limit: self.descriptors });
        }
        Ok(())
    }

    /// The server's memory; `None` if no process was named.
    pub(crate) fn memory_bytes(&self) -> Result<Option<u64>, RunError> {
        Ok(self.server.as_ref().map(Server::memory_bytes).transpose()?)
    }

    /// The server's CPU time; `None` if no process was named.
    pub(crate) fn cpu_time(&self) -> Result<Option<CpuTime>, RunError> {
        Ok(self.server.as_ref().map(Server::cpu_time).transpose()?)
    }
}

/// What each of so many connections added; `None` without connections or server.
pub(crate) fn growth(before: Option<u64>, after: Option<u64>, connections: usize) -> Option<f64> {
    let grown = after?.saturating_sub(before?) as f64;
    (connections > 0).then(|| rounded(grown / connections as f64))
}

/// What every thread is to do.
pub(crate) fn task(
    arguments: &TargetArguments,
    work: Work,
    resume: bool,
) -> Result<Task, RunError> {
    let target = Target {
        address: arguments.place.address,
        sources: arguments.source.clone(),
        name: arguments.name(),
        tls: None,
    };
    let config = arguments.tls().map(|choice| choice.config()).transpose()?;
    Ok(Task { target, config, resume, work })
}

pub(crate) fn placement(arguments: &ThreadsArguments) -> Placement {
    let cpus = arguments.cpus.clone().map_or_else(Vec::new, |list| list.0);
    let threads = arguments.threads.unwrap_or(cpus.len().max(1));
    Placement { threads, cpus, gives_way: false }
}

/// The request that the arguments describe; `None` if they describe none.
pub(crate) fn request(
    target: &TargetArguments,
    path: Option<&str>,
    request_bytes: Option<u64>,
    response_bytes: Option<u64>,
    headers: &[String],
) -> Option<Request> {
    let path = match (path, response_bytes) {
        (Some(path), _) => path.to_owned(),
        (None, Some(bytes)) => format!("/bytes/{bytes}"),
        (None, None) => {
            request_bytes?;
            "/bytes/0".to_owned()
        }
    };
    let host = target.name().to_str().into_owned();
    Some(Request::new(&path, &host, headers, request_bytes))
}

pub(crate) fn sleep_until(moment: Instant) {
    while !is_interrupted() {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// What casts doubt on the figures.
pub(crate) fn warnings(report: &Report, tally: &Tally) -> Vec<String> {
    let mut warnings = Vec::new();
    let share = report.client.busiest_thread_share;
    if share > BUSY_SHARE {
        warnings.push(format!(
            "the busiest thread of forebay-load used {:.0} % of a CPU: the load generator may be \
             what limits the result; give it more --threads",
            share * 100.0
        ));
    }
    let late = report.client.lateness_us.as_ref().map_or(0.0, |lateness| lateness.p99);
    let p99 = report.part.latency_us.as_ref().map_or(f64::MAX, |latency| latency.p99);
    if late > p99 / 2.0 {
        warnings.push(format!(
            "operations were begun up to {late:.0} µs late (p99) by forebay-load itself, which is \
             a large part of the latency: it may lack CPU"
        ));
    }
    for (cause, failures) in &tally.failed {
        let advice = cause.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        warnings.push(format!("{} × {}{advice}", failures.count, failures.example));
    }
    warnings
}
