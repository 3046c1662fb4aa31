//! What established connections suffer while new ones come: paced requests first alone,
//! then while a storm of new clients comes at a rate of its own.
//!
//! The requests have a thread to themselves, before which those of the storm give way:
//! what this program does for new clients must not delay those whose latency it measures.

use std::time::{Duration, Instant};

use crate::arguments::MixedArguments;
use crate::crew::{Crew, Placement, Task, WindowResult};
use crate::failure::Cause;
use crate::http::Request;
use crate::progress::ProgressLine;
use crate::report::{
    ClientReport, LatencyReport, MixedReport, Part, PhaseReport, Report, ServerReport, StormReport,
    TlsReport, rounded,
};
use crate::run::{self, Environment, LEAD, Outcome, RunError};
use crate::server_process::CpuTime;
use crate::tally::{Tally, Window};
use crate::work::{Close, Purpose, Schedule, Work};

pub(crate) fn run(arguments: &MixedArguments) -> Result<Outcome, RunError> {
    let MixedArguments { target, threads, output, connections, .. } = arguments;
    let environment = Environment::begin(output)?;
    let storm_connections = storm_connections(arguments, &environment)?;
    let steady_task = run::task(target, steady_work(arguments), false)?;
    let storm_task = Task { work: storm_work(arguments, storm_connections), ..steady_task.clone() };
    let (steady_placement, storm_placement) = placements(run::placement(threads));
    let steady = Crew::start(&steady_task, &steady_placement)?;
    let storm = Crew::start(&storm_task, &storm_placement)?;
    let progress = [steady.progress(), storm.progress()].concat();
    let line = ProgressLine::start(output.quiet, progress);

    let memory_before = environment.memory_bytes()?;
    let established = steady.prepare_all()?;
    let memory_after = environment.memory_bytes()?;

    let begin = Instant::now() + LEAD;
    let phase = |begin: Instant| {
        let start = begin + arguments.warm_up;
        Window { start, end: start + arguments.duration }
    };
    let quiet = phase(begin);
    let stormy = phase(quiet.end);
    let whole = Schedule { begin, windows: vec![quiet, stormy], stop: stormy.end, budget: None };
    let storms =
        Schedule { begin: quiet.end, windows: vec![stormy], stop: stormy.end, budget: None };
    steady.run(&whole)?;
    storm.run(&storms)?;
    let mut cpu: Vec<Option<CpuTime>> = Vec::new();
    for moment in [quiet.start, quiet.end, stormy.start, stormy.end] {
        run::sleep_until(moment);
        cpu.push(environment.cpu_time()?);
    }
    let ended = Instant::now();
    let lasted = |window: Window| ended.min(window.end).saturating_duration_since(window.start);
    let steady_result = steady.results()?;
    let storm_result = storm.results()?;
    drop(line);

    let [quiet_result, stormy_result] = two(steady_result.windows);
    let storm_result = storm_result.windows.into_iter().next().unwrap_or_default();
    let mut both = quiet_result.tally.clone();
    both.add(&stormy_result.tally);
    let seconds = lasted(quiet) + lasted(stormy);
    let server = |from: usize, to: usize, tally: &Tally, duration: Duration| {
        let (before, after) = (cpu[from]?, cpu[to]?);
        Some(ServerReport::new(after.since(before), tally, duration))
    };
    let mixed = MixedReport {
        quiet: PhaseReport::new(
            &quiet_result.tally,
            lasted(quiet),
            server(0, 1, &quiet_result.tally, lasted(quiet)),
        ),
        storm: storm_report(
            arguments,
            PhaseReport::new(
                &stormy_result.tally,
                lasted(stormy),
                // A new connection is what the server's time is divided by here.
                server(2, 3, &storm_result.tally, lasted(stormy)),
            ),
            &storm_result.tally,
            lasted(stormy),
        ),
        ratio_p99: ratio_p99(&quiet_result.tally, &stormy_result.tally),
    };
    let busiest_cpu = stormy_result.busiest_cpu.max(quiet_result.busiest_cpu);
    let client = WindowResult { tally: both.clone(), busiest_cpu };
    let mut report = Report {
        mode: "mixed",
        address: target.place.text.clone(),
        connections: *connections,
        tls: TlsReport::new(&steady_result.outside),
        part: Part::new(&both, seconds, Some(arguments.rate)),
        idle: None,
        mixed: Some(mixed),
        client: ClientReport::new(&client, arguments.duration, steady.threads() + storm.threads()),
        server: None,
        warnings: Vec::new(),
    };
    if let Some(mut server) = server(0, 3, &both, seconds) {
        // Requests are not what most of it was spent on.
        server.cpu_us_per_operation = None;
        server.memory_bytes_per_connection = run::growth(memory_before, memory_after, established);
        report.server = Some(server);
    }
    report.warnings = run::warnings(&report, &both);
    report.warnings.extend(storm_warnings(&storm_result, lasted(stormy)));
    let curves = vec![
        ("quiet", quiet_result.tally.latencies.clone()),
        ("storm", stormy_result.tally.latencies.clone()),
    ];
    Ok(Outcome { report, tally: both, curves })
}

fn steady_work(arguments: &MixedArguments) -> Work {
    let MixedArguments { target, request, .. } = arguments;
    let default = || Request::new("/", &target.name().to_str(), &request.header, None);
    let request = run::request(
        target,
        request.path.as_deref(),
        request.request_bytes,
        request.response_bytes,
        &request.header,
    );
    Work {
        purpose: Purpose::Exchange,
        connections: arguments.connections,
        request: Some(request.unwrap_or_else(default)),
        greeting_bytes: 0,
        close: Close::Leave,
        timeout: arguments.timeout,
        rate: Some(arguments.rate),
    }
}

fn storm_work(arguments: &MixedArguments, connections: usize) -> Work {
    let path = arguments.storm_request.as_deref();
    Work {
        purpose: Purpose::Connection,
        connections,
        request: run::request(&arguments.target, path, None, None, &[]),
        greeting_bytes: 0,
        close: arguments.storm_close,
        timeout: arguments.patience,
        rate: Some(arguments.storm_rate),
    }
}

/// New clients at once: what was asked for must fit; otherwise as many as can be waiting,
/// or as fit.
fn storm_connections(
    arguments: &MixedArguments,
    environment: &Environment,
) -> Result<usize, RunError> {
    let asked_for = arguments.storm_connections.unwrap_or(1);
    environment.check_connections(arguments.connections + asked_for)?;
    let room = environment.connections_max() - arguments.connections;
    let waiting = (arguments.storm_rate * arguments.patience.as_secs_f64()).ceil() as usize;
    Ok(arguments.storm_connections.unwrap_or(waiting.saturating_add(1).min(room)))
}

/// The first CPU is for the requests; the storm has the others, or shares it.
fn placements(given: Placement) -> (Placement, Placement) {
    let storm_cpus =
        if given.cpus.len() > 1 { given.cpus[1..].to_vec() } else { given.cpus.clone() };
    let steady = Placement {
        threads: 1,
        cpus: given.cpus.first().copied().into_iter().collect(),
        gives_way: false,
    };
    let threads =
        if given.cpus.len() > 1 { given.threads.min(storm_cpus.len()) } else { given.threads };
    (steady, Placement { threads, cpus: storm_cpus, gives_way: true })
}

fn storm_report(
    arguments: &MixedArguments,
    steady: PhaseReport,
    storm: &Tally,
    duration: Duration,
) -> StormReport {
    let gave_up = storm.failures_of(&[Cause::TimedOut, Cause::NotStarted, Cause::NotClosed]);
    let seconds = duration.as_secs_f64().max(f64::MIN_POSITIVE);
    // With a request an operation's latency is that of the answer.
    let handshakes = if arguments.storm_request.is_some() {
        &storm.handshake_latencies
    } else {
        &storm.latencies
    };
    StormReport {
        steady,
        storm_rate_per_second: arguments.storm_rate,
        offered: storm.offered,
        completed: storm.operations,
        gave_up,
        refused: storm.failures() - gave_up,
        storm_failed: crate::report::failed(storm),
        goodput_per_second: rounded(storm.operations as f64 / seconds),
        handshake_latency_us: LatencyReport::new(handshakes),
        storm_lateness_us: LatencyReport::new(&storm.lateness),
        storm_tls: TlsReport::new(storm),
    }
}

fn ratio_p99(quiet: &Tally, stormy: &Tally) -> Option<f64> {
    let p99 = |tally: &Tally| {
        let histogram = &tally.latencies.0;
        (!histogram.is_empty()).then(|| histogram.value_at_quantile(0.99) as f64)
    };
    Some(rounded(p99(stormy)? / p99(quiet)?))
}

/// The storm was not the one that was asked for.
fn storm_warnings(storm: &WindowResult, duration: Duration) -> Vec<String> {
    let late = &storm.tally.lateness.0;
    let mut warnings = Vec::new();
    if !late.is_empty() && late.value_at_quantile(0.99) > 100_000_000 {
        warnings.push(format!(
            "new clients came up to {:.0} ms late (p99): forebay-load lacks CPU for this storm rate",
            late.value_at_quantile(0.99) as f64 / 1e6
        ));
    }
    let share = storm.busiest_cpu.as_secs_f64() / duration.as_secs_f64().max(f64::MIN_POSITIVE);
    if share > run::BUSY_SHARE {
        warnings.push(format!(
            "the busiest thread of the storm used {:.0} % of a CPU: give it more --threads and --cpus",
            share * 100.0
        ));
    }
    warnings
}

fn two(windows: Vec<WindowResult>) -> [WindowResult; 2] {
    let mut windows = windows.into_iter();
    [windows.next().unwrap_or_default(), windows.next().unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cpu_is_kept_for_the_requests_if_there_are_more() {
        let given = Placement { threads: 3, cpus: vec![4, 5, 6], gives_way: false };
        let (steady, storm) = placements(given);
        assert_eq!((steady.threads, steady.cpus), (1, vec![4]));
        assert_eq!((storm.threads, storm.cpus), (2, vec![5, 6]));
        let (steady, storm) = placements(Placement { threads: 2, cpus: vec![1], gives_way: false });
        assert_eq!((steady.cpus, storm.cpus, storm.threads), (vec![1], vec![1], 2));
        assert!(storm.gives_way && !steady.gives_way);
    }
}
