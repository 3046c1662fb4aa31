//! `[pool.check]`: how the servers of a pool are checked.

use std::sync::Arc;
use std::time::Duration;

use crate::upstream::exchange::{Expect, Script, TEXT_BYTES_MAX};
use crate::upstream::health::Check;

use super::item::{Item, Section};
use super::report::Report;
use super::values;

/// The keys.
///
/// * `interval = duration`, `"100ms"` to `"1h"`, default `"2s"`: from the start of one check
///   of a backend to that of the next.
/// * `timeout = duration`, `"10ms"` to `"1m"`, default `"2s"`: how long a check may take,
///   connecting included.
/// * `rise = N`, 1 to 100, default 2: checks in a row that a backend must pass to come back.
/// * `fall = N`, 1 to 100, default 3: checks in a row that a backend must fail to be out.
/// * `jitter = N`, 0 to 50, default 10: hundredths of the interval that it is longer or
///   shorter by, at most. Each node and backend has a rhythm of its own.
/// * `port = N`, default the backend's own: the TCP port that is checked, and without a PROXY
///   header. It is not used for UNIX sockets.
/// * `send = "text"`, at most 1,024 bytes, default none: what is sent once connected, in clear
///   and behind the PROXY header, if the pool sends one. With `[pool.tls]` only to a `port`. `\r`, `\n`, `\t`, `\0`, `\\` and `\x7f` stand
///   for bytes.
/// * `expect = "text"`, 1 to 1,024 bytes, default none: what the answer must be. Without it,
///   connecting and sending are enough.
/// * `expect_at = "start" | "anywhere"`, default `"start"`: whether the answer must begin with
///   it, or have it somewhere in its first 4,096 bytes.
/// * `agent_port = N`, default none: the TCP port of an agent as HAProxy's `agent-check`
///   knows it, on the address of each backend. It is asked once an interval.
pub(super) const KEYS: &[&str] = &[
    "interval",
    "timeout",
    "rise",
    "fall",
    "jitter",
    "port",
    "send",
    "expect",
    "expect_at",
    "agent_port",
];

/// What is expected, where.
type ExpectAt = fn(Vec<u8>) -> Expect;

const PLACES: [(&str, ExpectAt); 2] = [("start", Expect::Start), ("anywhere", Expect::Anywhere)];

/// `None` without the table, which is no checks.
pub(super) fn read(report: &mut Report<'_>, pool: &Section<'_>) -> Option<Arc<Check>> {
    let section = pool.item(report, "check")?.section(report, KEYS);
    if pool.item(report, "tls").is_some() && section.item(report, "port").is_none() {
        refuse_talk_in_clear(report, &section);
    }
    let default = Check::default();
    let seconds = Duration::from_secs;
    let milliseconds = Duration::from_millis;
    let in_a_row = |item: &Item<'_>, report: &mut Report<'_>| item.count(report, 1..=100);
    let port = |item: &Item<'_>, report: &mut Report<'_>| item.count(report, 1..=u16::MAX);
    Some(Arc::new(Check {
        interval: section.value(report, "interval", default.interval, |item, report| {
            item.duration(report, milliseconds(100)..=seconds(3_600))
        }),
        timeout: section.value(report, "timeout", default.timeout, |item, report| {
            item.duration(report, milliseconds(10)..=seconds(60))
        }),
        rise: section.value(report, "rise", default.rise, in_a_row),
        fall: section.value(report, "fall", default.fall, in_a_row),
        jitter_percent: section.value(report, "jitter", default.jitter_percent, |item, report| {
            item.count(report, 0..=50)
        }),
        port: section.optional(report, "port", port),
        script: Script {
            send: section.value(report, "send", Vec::new(), bytes),
            expect: read_expect(report, &section),
        },
        agent_port: section.optional(report, "agent_port", port),
    }))
}

fn refuse_talk_in_clear(report: &mut Report<'_>, section: &Section<'_>) {
    for key in ["send", "expect"] {
        if let Some(item) = section.item(report, key) {
            let message = "checks speak in clear, and these servers are spoken TLS";
            let help = "write port for one that is not, or take the key out";
            report.error(item.place(), message.into(), Some(help.into()));
        }
    }
}

fn read_expect(report: &mut Report<'_>, section: &Section<'_>) -> Expect {
    let place = section
        .value(report, "expect_at", PLACES[0].1, |item, report| item.choice(report, &PLACES));
    let text = section.optional(report, "expect", |item, report| {
        let text = bytes(item, report)?;
        if text.is_empty() {
            let help = "write what the answer must be, or take the key out";
            report.error(item.place(), "is empty".into(), Some(help.into()));
            return None;
        }
        Some(text)
    });
    if let Some(item) = section.item(report, "expect_at")
        && section.item(report, "expect").is_none()
    {
        let message = "has no effect without expect".into();
        report.warning(item.place(), message, Some("write expect too".into()));
    }
    text.map_or(Expect::Nothing, place)
}

fn bytes(item: &Item<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let bytes = item.text(report).and_then(|text| {
        let bytes = values::bytes(text);
        item.understood(report, bytes)
    })?;
    if bytes.len() > TEXT_BYTES_MAX {
        let message = format!("has {} bytes", bytes.len());
        let help = format!("write at most {TEXT_BYTES_MAX} bytes");
        report.error(item.place(), message, Some(help));
        return None;
    }
    Some(bytes)
}
