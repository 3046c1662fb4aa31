//! `forebay check --facts`: what a file settles, one `key=value` a line, for programs.
//!
//! ```text
//!   listener=[::]:443        once for each address listened on
//!   admin=127.0.0.1:9440     if there is one
//!   engines=3                threads
//!   engine_cpus=0 1 2        one for each engine
//!   worker_cpus=3            one for each worker; empty: handshakes run on the engines
//!   max_connections=8192
//!   backlog=4096             for each engine and address
//!   tcp_backends=2           distinct addresses and host names, UNIX sockets not among them
//!   descriptors=16774        RLIMIT_NOFILE that takes all of max_connections
//!   reserved_huge_pages=0    vm.nr_hugepages that takes all buffers; 0 unless wanted
//!   napi_busy_poll_us=0      microseconds; 0 is off
//! ```
//!
//! Keys are added, never renamed: `tuning/forebay-tune` reads them. The CPUs are those
//! that a process with this affinity mask would use.

use std::collections::HashSet;
use std::fmt::Write;

use crate::config::{BackendAddress, Settings};
use crate::control::cpus::{CpuNotAllowed, Placement};
use crate::control::limits::Reserve;
use crate::control::start::place;
use crate::driver::memory::HUGE_PAGE_BYTES;
use crate::driver::{BUFFER_BYTES, LARGE_BUFFER_BYTES};
use crate::endpoint::Endpoint;
use crate::switch::Switch;

/// The facts as text.
///
/// # Errors
/// A configured CPU may not be used.
pub(super) fn facts(settings: &Settings) -> Result<String, CpuNotAllowed> {
    let Placement { engines, workers, .. } = place(settings)?;
    let listeners = || settings.listeners.iter().flat_map(|listener| &listener.addresses);
    let tcp_backends: HashSet<&BackendAddress> = settings
        .pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| &backend.value.address)
        .filter(|backend| !matches!(backend, BackendAddress::Endpoint(Endpoint::Unix(_))))
        .collect();
    let reserve = Reserve { engines: engines.len(), listeners: listeners().count() };
    let max_connections = settings.engine.max_connections;

    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{key}={value}");
    };
    for address in listeners() {
        line("listener", &address.value);
    }
    if let Some(address) = &settings.admin.address {
        line("admin", &address.value);
    }
    line("engines", &engines.len());
    line("engine_cpus", &spaced(&engines));
    line("worker_cpus", &spaced(&workers));
    line("max_connections", &max_connections);
    line("backlog", &settings.engine.backlog);
    line("tcp_backends", &tcp_backends.len());
    line("descriptors", &reserve.descriptors_for(max_connections));
    line("reserved_huge_pages", &reserved_huge_pages(settings, engines.len()));
    line("napi_busy_poll_us", &settings.engine.napi_busy_poll.as_micros());
    Ok(text)
}

fn reserved_huge_pages(settings: &Settings, engines: usize) -> usize {
    if settings.engine.huge_pages != Switch::On {
        return 0;
    }
    let bytes = settings.engine.buffers_per_engine(engines) * BUFFER_BYTES
        + settings.engine.large_buffers * LARGE_BUFFER_BYTES;
    // One mapping for each engine.
    engines * bytes.div_ceil(HUGE_PAGE_BYTES)
}

fn spaced(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn facts_of(text: &str) -> String {
        let (settings, findings) = config::parse(text, Path::new("forebay.toml"));
        facts(&settings.unwrap_or_else(|| panic!("{findings:?}"))).expect("facts")
    }

    const LISTENER: &str = "[[listener]]\naddress = [\":443\", \"192.0.2.1:8443\"]\n\
                            certificates = [\"a.pem\"]\npool = \"a\"\n";

    #[test]
    fn every_address_and_number_is_told() {
        let text = facts_of(&format!(
            "{LISTENER}[[pool]]\nname = \"a\"\n\
             backends = [\"10.0.0.1:80\", \"unix:/run/a.sock\", \"host.example:80\"]\n\
             [[pool]]\nname = \"b\"\nbackends = [\"10.0.0.1:80\"]\n\
             [engine]\nengines = 1\nmax_connections = 1000\nbacklog = 128\n\
             huge_pages = \"on\"\nnapi_busy_poll = \"1ms\"\n\
             [handshake]\ninline = true\n[admin]\naddress = \"127.0.0.1:9440\"\n"
        ));
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "listener=[::]:443",
            "listener=192.0.2.1:8443",
            "admin=127.0.0.1:9440",
            "engines=1",
            "worker_cpus=",
            "max_connections=1000",
            "backlog=128",
            "tcp_backends=2",
            // 2 × 1000 + 128 + 1 × (32 + 2)
            "descriptors=2162",
            // 2000 × 17,472 + 32 × 69,632 bytes
            "reserved_huge_pages=18",
            "napi_busy_poll_us=1000",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn a_cpu_that_may_not_be_used_is_an_error() {
        let text = format!(
            "{LISTENER}[[pool]]\nname = \"a\"\nbackends = [\"unix:/a\"]\n[engine]\ncpus = [1023]\n"
        );
        let (settings, _) = config::parse(&text, Path::new("forebay.toml"));
        let error = facts(&settings.expect("settings")).expect_err("not allowed");
        assert!(error.to_string().contains("1023"), "{error}");
    }
}
