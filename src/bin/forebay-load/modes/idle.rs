//! Connections on which nothing happens: how many there can be, and what each costs the
//! server.

use std::time::Instant;

use crate::arguments::IdleArguments;
use crate::crew::Crew;
use crate::progress::ProgressLine;
use crate::report::{ClientReport, IdleReport, Part, Report, ServerReport, TlsReport};
use crate::run::{self, Environment, Outcome, RunError};
use crate::tally::{Tally, Window};
use crate::work::{Close, Purpose, Schedule, Work};

pub(crate) fn run(arguments: &IdleArguments) -> Result<Outcome, RunError> {
    let IdleArguments { target, first, threads, output, .. } = arguments;
    let environment = Environment::begin(output)?;
    let limit = environment.connections_max();
    let connections = arguments.connections.min(limit);
    let request = run::request(
        target,
        first.request.as_deref(),
        first.request_bytes,
        first.response_bytes,
        &first.header,
    );
    let work = Work {
        purpose: Purpose::Hold,
        connections,
        request,
        greeting_bytes: first.send_on_connect,
        close: Close::Leave,
        timeout: arguments.timeout,
        rate: None,
    };
    let task = run::task(target, work, false)?;
    let crew = Crew::start(&task, &run::placement(threads))?;
    let line = ProgressLine::start(output.quiet, crew.progress());

    // Half of them are left to tell what one costs.
    let baseline = crew.prepare(arguments.baseline.min(connections / 2))?;
    run::sleep_until(Instant::now() + arguments.settle);
    let memory_before = environment.memory_bytes()?;
    let established = crew.prepare(connections)?;
    run::sleep_until(Instant::now() + arguments.settle);
    let memory_after = environment.memory_bytes()?;

    let start = Instant::now();
    let window = Window { start, end: start + arguments.duration };
    let schedule = Schedule { begin: start, windows: vec![window], stop: window.end, budget: None };
    crew.run(&schedule)?;
    let cpu_before = environment.cpu_time()?;
    run::sleep_until(window.end);
    let cpu_after = environment.cpu_time()?;
    let held = Instant::now().min(window.end).saturating_duration_since(start);
    let held_result = crew.results()?.windows.into_iter().next().unwrap_or_default();
    let verified = crew.verify()?;
    drop(line);

    // Connections were opened before the window, and looked after behind it.
    let mut tally = verified.tally;
    tally.add(&Tally { failed: held_result.tally.failed.clone(), ..Tally::default() });
    tally.offered = connections as u64;
    tally.operations = verified.alive as u64;
    let mut report = Report {
        mode: "idle",
        address: target.place.text.clone(),
        connections,
        tls: TlsReport::new(&tally),
        part: Part::new(&tally, held, None),
        idle: Some(IdleReport {
            asked_for: arguments.connections,
            descriptor_limit: environment.descriptors,
            established,
            alive: verified.alive,
        }),
        mixed: None,
        client: ClientReport::new(&held_result, held, crew.threads()),
        server: None,
        warnings: Vec::new(),
    };
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let mut server = ServerReport::new(after.since(before), &Tally::default(), held);
        server.memory_bytes_per_connection =
            run::growth(memory_before, memory_after, established.saturating_sub(baseline));
        report.server = Some(server);
    }
    report.warnings = run::warnings(&report, &tally);
    if connections < arguments.connections {
        report.warnings.push(format!(
            "{connections} connections instead of {}: the descriptor limit is {}; raise it by ulimit -n",
            arguments.connections, environment.descriptors
        ));
    }
    let tried = verified.alive as u64 + tally.failures();
    if tried < connections as u64 {
        report.warnings.push(format!(
            "the server takes no more: only {tried} of {connections} connections were tried"
        ));
    }
    let curves = vec![("handshake", tally.handshake_latencies.clone())];
    Ok(Outcome { report, tally, curves })
}
