//! The start of the real binary: what it settles, what it says of it, and which
//! surroundings it refuses to run in.

mod support;

use std::collections::BTreeMap;
use std::fs;

use support::confinement::{forbid_io_uring, limit_address_space, limit_descriptors};
use support::forebay::Forebay;
use support::site::{Site, allowed_cpus, cpus_allowed_list, exchange, field};

// ---- what the log says ----

#[test]
fn the_log_says_at_the_start_what_there_is_to_work_with() {
    let site = Site::new();
    let mut forebay = site.start(
        "[engine]\nengines = 2\nmax_connections = 64\n\
         [handshake]\nworkers = 2\ncredits = 8\n",
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("uname");
    let ready = forebay.wait_for_log("engines are ready");
    for part in [
        &format!("ring=kernel {} ", kernel.trim()),
        "flags SINGLE_ISSUER|DEFER_TASKRUN|",
        " features ",
        " missing ",
        "provider=aws-lc-rs",
        "engines=2",
        "engine_cpus=",
        "workers=2",
        "worker_cpus=",
        "handshakes=\"offloaded\"",
    ] {
        assert!(ready.contains(part), "{part} in {ready}");
    }
    let limit = forebay.wait_for_log("connection limit settled");
    assert_eq!(field(&limit, "connections_max"), 64);
    assert_eq!(field(&limit, "per_engine"), 32);
    assert_eq!(field(&limit, "rlimit_nofile") as f64, forebay.metric("process_max_fds", &[]));
    let listening = forebay.wait_for_log("listening");
    assert!(listening.contains("listener=\"shop\""), "{listening}");
    assert!(listening.contains(&format!("address={}", site.address)), "{listening}");
    forebay.wait_for_log("admin address served");
}

#[test]
fn the_memory_that_the_log_names_is_taken_at_the_start() {
    let site = Site::new();
    let mut forebay = site.start("[engine]\nengines = 1\nmax_connections = 64\nbuffers = 2000\n");
    let named = field(&forebay.wait_for_log("engines are ready"), "memory_bytes") as f64;
    let buffers = forebay.metric("forebay_buffers_bytes", &[]);
    assert!(named > buffers && buffers > 2_000.0 * 16_384.0, "{named} holds {buffers}");
    assert!(forebay.metric("process_resident_memory_bytes", &[]) > buffers);
}

// ---- threads ----

#[test]
fn engines_and_workers_run_on_the_cpus_that_they_were_given() {
    let mut cpus = allowed_cpus();
    cpus.truncate(2);
    let count = cpus.len();
    let (first, last) = (cpus[0], cpus[count - 1]);
    let site = Site::new();
    let mut forebay = site.start(&format!(
        "[engine]\nengines = {count}\ncpus = {cpus:?}\n[handshake]\nworkers = 1\ncpus = [{last}]\n"
    ));
    let threads = threads(&mut forebay);
    assert_eq!(threads["engine-0"], first.to_string(), "{threads:?}");
    assert_eq!(threads[&format!("engine-{}", count - 1)], last.to_string(), "{threads:?}");
    assert_eq!(threads["worker-0"], last.to_string(), "{threads:?}");
    // Whatever is not on the data path goes where there is room.
    let everywhere = cpus_allowed_list("/proc/self/status");
    let others = ["forebay", "log", "admin", "prober"];
    for thread in others {
        assert_eq!(threads[thread], everywhere, "{thread} in {threads:?}");
    }
    assert_eq!(threads.len(), count + 1 + others.len(), "{threads:?}");
}

#[test]
fn every_engine_accepts_shakes_hands_and_relays() {
    const ENGINES: usize = 3;
    let site = Site::new();
    let forebay = site.start(&format!("[engine]\nengines = {ENGINES}\n[handshake]\nworkers = 1\n"));
    // The kernel spreads connections by a hash of their ports: that one of three engines
    // gets none of sixty happens once in ten thousand million runs.
    for _ in 0..60 {
        site.exchange();
    }
    for engine in 0..ENGINES {
        let engine = format!("engine=\"{engine}\"");
        for metric in [
            "forebay_connections_accepted_total",
            "forebay_handshakes_total",
            "forebay_relayed_bytes_total",
        ] {
            assert!(forebay.metric(metric, &[&engine]) > 0.0, "{metric} of {engine}");
        }
    }
    assert_eq!(forebay.metric("forebay_handshakes_total", &[]), 60.0);
}

#[test]
fn inline_handshakes_are_done_without_any_worker() {
    let site = Site::new();
    let mut forebay = site.start("[engine]\nengines = 1\n[handshake]\ninline = true\n");
    site.exchange();
    let threads = threads(&mut forebay);
    let names: Vec<_> = threads.keys().map(String::as_str).collect();
    assert_eq!(names, ["admin", "engine-0", "forebay", "log", "prober"]);
    let ready = forebay.wait_for_log("engines are ready");
    assert!(ready.contains("workers=0") && ready.contains("handshakes=\"inline\""), "{ready}");
    assert_eq!(forebay.metric("forebay_workers", &[]), 0.0);
    assert_eq!(forebay.metric("forebay_handshakes_total", &["engine=\"0\""]), 1.0);
    // The engine counts the steps as the worker of its own number.
    assert!(forebay.metric("forebay_handshake_steps_total", &["worker=\"0\""]) >= 2.0);
}

#[test]
fn a_cpu_that_the_process_may_not_use_is_named_with_those_that_it_may() {
    let site = Site::new();
    let error = site.refusal("[engine]\ncpus = [8191]\n", |_| ());
    let allowed = cpus_allowed_list("/proc/self/status");
    assert!(error.contains("engine.cpus: CPU 8191 is not one that the process may use"), "{error}");
    assert!(error.contains(&format!("({allowed})")), "{allowed} in {error}");
}

// ---- limits ----

#[test]
fn a_low_descriptor_limit_lowers_the_number_of_connections_and_says_so() {
    let site = Site::new();
    let settings = "[engine]\nengines = 1\nmax_connections = 1000\n\
                    [handshake]\nworkers = 1\n[timeouts]\nclient_hello = \"10m\"\n";
    let mut forebay = site.start_with(settings, |command| limit_descriptors(command, 300, 300));
    let warning = forebay.wait_for_log("RLIMIT_NOFILE allows fewer connections than configured");
    assert!(warning.contains(" WARN "), "{warning}");
    assert_eq!(field(&warning, "configured"), 1_000);
    assert_eq!(field(&warning, "rlimit_nofile"), 300);
    let limit = field(&warning, "connections_max");
    assert!((50..100).contains(&limit), "{limit} of two descriptors each");
    assert_eq!(forebay.metric("forebay_connections_max", &[]), limit as f64);

    // At the limit the next client waits in the backlog and loses nothing by it.
    let idle: Vec<_> = (0..limit).map(|_| site.connect()).collect();
    forebay.wait_until("the table is full", |forebay| {
        forebay.metric("forebay_connections", &[]) == limit as f64
    });
    let mut waiting = site.tls_client();
    assert_eq!(forebay.metric("forebay_connections_accepted_total", &[]), limit as f64);
    drop(idle);
    exchange(&mut waiting);
    assert_eq!(forebay.metric("forebay_accept_failures_total", &[]), 0.0);
}

#[test]
fn the_soft_descriptor_limit_is_raised_to_the_hard_one() {
    let site = Site::new();
    let settings = "[engine]\nengines = 1\nmax_connections = 100\n";
    let mut forebay = site.start_with(settings, |command| limit_descriptors(command, 64, 500));
    assert_eq!(field(&forebay.wait_for_log("connection limit settled"), "rlimit_nofile"), 500);
    assert_eq!(forebay.metric("process_max_fds", &[]), 500.0);
}

#[test]
fn too_few_descriptors_are_an_error_that_says_how_many_are_needed() {
    let site = Site::new();
    let error = site.refusal("[engine]\nengines = 1\n", |command| {
        limit_descriptors(command, 64, 64);
    });
    assert!(error.contains("RLIMIT_NOFILE is 64, and 161 descriptors are needed"), "{error}");
    assert!(error.contains("LimitNOFILE=") && error.contains("ulimit -n"), "{error}");
}

#[test]
fn memory_that_is_not_there_is_an_error_that_names_the_setting() {
    let site = Site::new();
    // The most buffers that can be asked for are 4.2 GiB.
    let settings = "[engine]\nengines = 1\nmax_connections = 64\nbuffers = 258047\n";
    let error = site.refusal(settings, |command| limit_address_space(command, 4 << 30));
    assert!(error.contains("cannot take the memory of the buffer pool"), "{error}");
    assert!(error.contains("lower `engine.buffers` or `engine.max_connections`"), "{error}");
}

// ---- what only a start can change ----

#[test]
fn a_setting_that_needs_a_restart_is_named_at_every_reload_that_finds_it_changed() {
    const NAMED: &str = "engine: has changed, which takes effect at the next start";
    let site = Site::new();
    let mut forebay = site.start("[engine]\nengines = 1\nmax_connections = 64\n");
    let original = fs::read_to_string(&forebay.configuration_file).expect("the file");
    let changed = original.replace("max_connections = 64", "max_connections = 65");
    for (reload, text, named) in [(1, &changed, 1), (2, &changed, 2), (3, &original, 2)] {
        fs::write(&forebay.configuration_file, text).expect("written");
        forebay.signal(libc::SIGHUP);
        // The last line of a reload: what it found stands before it.
        forebay.wait_for_log(&format!("new configuration generation={}", reload + 1));
        let log = forebay.log();
        let lines = log.iter().filter(|line| line.contains(NAMED)).count();
        assert_eq!(lines, named, "reload {reload}: {log:#?}");
    }
    assert_eq!(forebay.metric("forebay_connections_max", &[]), 64.0);
}

// ---- io_uring ----

#[test]
fn where_io_uring_is_forbidden_the_error_says_what_to_change() {
    let site = Site::new();
    for (errno, words) in
        [(libc::EPERM, "Operation not permitted"), (libc::ENOSYS, "Function not implemented")]
    {
        let error = site.refusal("[engine]\nengines = 2\n[handshake]\nworkers = 1\n", |command| {
            forbid_io_uring(command, errno);
        });
        for part in ["io_uring is disabled", words, "kernel.io_uring_disabled=0", "seccomp"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}

// ---- threads of a process ----

/// The CPUs of each thread of the process, by the thread's name; without those that the
/// kernel starts for a ring now and then (`iou-wrk-…`). Nothing that is waited for at the
/// start needs the prober, which gives itself its name when it first runs.
fn threads(forebay: &mut Forebay) -> BTreeMap<String, String> {
    forebay.wait_until("the prober runs", |forebay| threads_now(forebay).contains_key("prober"));
    threads_now(forebay)
}

fn threads_now(forebay: &Forebay) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", forebay.pid())).expect("its threads");
    tasks
        .filter_map(|task| {
            let path = task.expect("a thread").path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            let ours = !name.starts_with("iou-");
            ours.then(|| (name.trim().to_owned(), cpus_allowed_list(path.join("status"))))
        })
        .collect()
}
