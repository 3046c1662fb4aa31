//! The switches of `[engine]` in the real binary: what each does where the kernel has it,
//! and that its want of it is said once and costs nothing else.

mod support;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use rustix::process::{Resource, getrlimit};
use support::confinement::limit_locked_memory;
use support::forebay::Forebay;
use support::site::{Site, allowed_cpus, field};

/// Enough buffers for some tens of huge pages.
const ENGINE: &str = "[engine]\nengines = 1\nmax_connections = 64\nbuffers = 4000\n";

// ---- polling ----

#[test]
fn an_engine_that_polls_serves_shakes_hands_and_stops_as_any_other() {
    for spin in ["always", "200us"] {
        let site = Site::new();
        let mut forebay = site.start(&format!("{ENGINE}spin = \"{spin}\"\n"));
        if allowed_cpus().len() == 1 {
            forebay.wait_for_log("engine.spin: has no effect on engines 0");
        }
        for _ in 0..10 {
            site.exchange();
        }
        forebay.wait_until("everything came back", |forebay| {
            forebay.metric("forebay_connections", &[]) == 0.0
        });
        forebay.signal(libc::SIGTERM);
        assert!(forebay.wait_for_exit().success(), "{:#?}", forebay.log());
    }
}

#[test]
fn an_engine_turns_without_work_only_as_long_as_it_was_told_to_poll() {
    let turns = |spin: &str| {
        let forebay = Site::new().start(&format!("{ENGINE}spin = \"{spin}\"\n"));
        let turns = |forebay: &Forebay| forebay.metric("forebay_engine_turns_total", &[]);
        // Beyond the longest time that one can be told to poll, but for ever.
        thread::sleep(Duration::from_millis(50));
        let before = turns(&forebay);
        thread::sleep(Duration::from_millis(500));
        let shares = forebay.log().iter().any(|line| line.contains("engine.spin: has no effect"));
        (turns(&forebay) - before, shares)
    };
    for spin in ["off", "10ms"] {
        let (turned, _) = turns(spin);
        assert!(turned < 10.0, "{spin}: {turned}");
    }
    let (turned, shares) = turns("always");
    assert_eq!(turned > 1_000.0, !shares, "always: {turned}");
}

#[test]
fn an_engine_that_shares_its_cpu_does_not_poll_and_both_commands_say_so() {
    const WARNING: &str = "warning: engine.spin: has no effect on engines 0";
    let cpu = allowed_cpus()[0];
    let site = Site::new();
    let settings =
        format!("{ENGINE}cpus = [{cpu}]\nspin = \"always\"\n[handshake]\ncpus = [{cpu}]\n");
    let mut forebay = site.start(&settings);
    let warning = forebay.wait_for_log(WARNING);
    assert!(warning.contains(" WARN "), "{warning}");
    for _ in 0..10 {
        site.exchange();
    }
    let checked = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["check", "-c"])
        .arg(&forebay.configuration_file)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains(WARNING), "{said}");
}

#[test]
fn network_devices_are_polled_where_the_kernel_can() {
    let site = Site::new();
    let mut forebay = site.start(&format!("{ENGINE}napi_busy_poll = \"100us\"\n"));
    for _ in 0..10 {
        site.exchange();
    }
    let polls = forebay.wait_for_log("engines are ready").contains("polls_devices=true");
    let warned = forebay.log().iter().any(|line| line.contains("does not poll network devices"));
    assert_ne!(polls, warned);
    if kernel_is_at_least(6, 9) {
        // Whoever builds a kernel for a proxy without this knows it.
        assert!(polls, "{:#?}", forebay.log());
    }
}

// ---- steering ----

#[test]
fn steered_clients_are_served_by_the_engine_on_the_cpu_that_received_them() {
    let cpus = allowed_cpus();
    let site = Site::new();
    let mut forebay = site.start(&format!(
        "[engine]\ncpus = {cpus:?}\nmax_connections = 1000\nsteer = \"cpu\"\n\
         [handshake]\ninline = true\n"
    ));
    let accepted = |forebay: &Forebay| -> Vec<f64> {
        let of_engine = |engine| {
            let label = format!("engine=\"{engine}\"");
            forebay.metric("forebay_connections_accepted_total", &[&label])
        };
        (0..cpus.len()).map(of_engine).collect()
    };
    let mut expected = vec![0.0; cpus.len()];
    for (engine, cpu) in cpus.iter().enumerate() {
        // A packet on loopback is received by the CPU that sent it.
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(core_affinity::set_for_current(CoreId { id: *cpu }));
                (0..10).for_each(|_| site.exchange());
            });
        });
        expected[engine] += 10.0;
        // The page is not printed anew for every look at it.
        forebay.wait_until("all are counted", |forebay| {
            accepted(forebay).iter().sum::<f64>() == expected.iter().sum()
        });
        assert_eq!(accepted(&forebay), expected, "from CPU {cpu}");
    }
    // While it drains the sockets of the group are closed one after the other.
    forebay.signal(libc::SIGTERM);
    assert!(forebay.wait_for_exit().success(), "{:#?}", forebay.log());
}

// ---- what is not used ----

#[test]
fn the_start_reports_what_would_save_copies_and_is_not_used() {
    let mut forebay = Site::new().start(ENGINE);
    let line = forebay.wait_for_log("not used by forebay (docs/zero-copy.md)");
    assert!(line.contains(" INFO "), "{line}");
    let in_kernel = line.contains("zero_copy_receive=\"in this kernel\"");
    assert_ne!(in_kernel, line.contains("zero_copy_receive=\"not in this kernel\""), "{line}");
    assert!(!in_kernel || kernel_is_at_least(6, 15), "{line}");
    let protocols = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let loaded = protocols.split_whitespace().any(|name| name == "tls");
    let words = if loaded { "kernel_tls=\"loaded\"" } else { "kernel_tls=\"not loaded\"" };
    assert!(line.contains(words), "{line}");
    assert!(fs::exists("docs/zero-copy.md").expect("the repository"));
}

// ---- huge pages ----

#[test]
fn buffers_lie_on_transparent_huge_pages_by_default() {
    const WANTED: &str = " hg"; // `MADV_HUGEPAGE` in the flags of proc_pid_smaps(5).
    let site = Site::new();
    let mut forebay = site.start(ENGINE);
    site.exchange();
    let ready = forebay.wait_for_log("engines are ready");
    if !fs::exists("/sys/kernel/mm/transparent_hugepage").expect("sysfs") {
        assert!(ready.contains("buffer_pages=\"ordinary\""), "{ready}");
        return;
    }
    assert!(ready.contains("buffer_pages=\"transparent huge\""), "{ready}");
    assert!(buffers_mapping(&forebay).contains(WANTED));

    let mut forebay = Site::new().start(&format!("{ENGINE}huge_pages = \"off\"\n"));
    let ready = forebay.wait_for_log("engines are ready");
    assert!(ready.contains("buffer_pages=\"ordinary\""), "{ready}");
    assert!(!buffers_mapping(&forebay).contains(WANTED));
}

#[test]
fn reserved_huge_pages_are_taken_or_their_want_is_told() {
    let site = Site::new();
    let reserved_bytes = free_reserved_bytes();
    let mut forebay = site.start(&format!("{ENGINE}huge_pages = \"on\"\n"));
    site.exchange();
    let ready = forebay.wait_for_log("engines are ready");
    let needed_bytes = forebay.metric("forebay_buffers_bytes", &[]) + 3e6;
    let warned = forebay.log().iter().any(|line| line.contains("too few reserved huge pages"));
    if reserved_bytes > needed_bytes {
        assert!(ready.contains("buffer_pages=\"reserved huge\"") && !warned, "{ready}");
    } else {
        assert!(!ready.contains("buffer_pages=\"reserved huge\"") && warned, "{ready}");
        let warning = forebay.wait_for_log("too few reserved huge pages");
        assert!(warning.contains(" WARN ") && warning.contains("vm.nr_hugepages"), "{warning}");
        assert_eq!(field(&warning, "without"), 1);
    }
}

// ---- locked memory ----

/// As distributions set it, and less than the buffers.
const LOCKED_BYTES_MAX: u64 = 8 * 1024 * 1024;

#[test]
fn memory_is_locked_where_it_may_be() {
    let site = Site::new();
    let mut forebay = site.start(ENGINE);
    site.exchange();
    let locked = forebay.wait_for_log("engines are ready").contains("memory_locked=true");
    assert_eq!(locked, may_lock_memory());
    // What is mapped counts, and of that only what is touched is there.
    let buffers = forebay.metric("forebay_buffers_bytes", &[]) as u64 / 1024;
    assert_eq!(status_of(&forebay, "VmLck:") > buffers, locked);
    assert!(forebay.metric("process_resident_memory_bytes", &[]) < 400e6);

    let mut forebay = Site::new().start(&format!("{ENGINE}lock_memory = \"off\"\n"));
    assert!(forebay.wait_for_log("engines are ready").contains("memory_locked=false"));
    assert_eq!(status_of(&forebay, "VmLck:"), 0);
}

#[test]
fn under_a_limit_nothing_is_locked_and_nothing_else_suffers() {
    let site = Site::new();
    let mut forebay =
        site.start_with(ENGINE, |command| limit_locked_memory(command, LOCKED_BYTES_MAX));
    site.exchange();
    assert!(forebay.wait_for_log("engines are ready").contains("memory_locked=false"));
    assert_eq!(status_of(&forebay, "VmLck:"), 0);
    assert_eq!(forebay.log().iter().filter(|line| line.contains(" WARN ")).count(), 0);
}

#[test]
fn memory_that_must_be_locked_and_cannot_be_is_an_error_that_says_what_to_change() {
    let settings = format!("{ENGINE}lock_memory = \"on\"\n");
    let error =
        Site::new().refusal(&settings, |command| limit_locked_memory(command, LOCKED_BYTES_MAX));
    for part in ["engine.lock_memory", "RLIMIT_MEMLOCK is 8388608 bytes", "LimitMEMLOCK=infinity"] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

/// Whether this process, and so what it starts, may lock all its memory.
fn may_lock_memory() -> bool {
    const CAP_IPC_LOCK: u32 = 14; // linux/capability.h
    let status = fs::read_to_string("/proc/self/status").expect("proc_pid_status(5)");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("the line").trim(), 16).expect("hex");
    effective & (1 << CAP_IPC_LOCK) != 0 || getrlimit(Resource::Memlock).maximum.is_none()
}

/// What proc_pid_status(5) says of the process, in KiB.
fn status_of(forebay: &Forebay, name: &str) -> u64 {
    let file = format!("/proc/{}/status", forebay.pid());
    kibibytes(&fs::read_to_string(file).expect("proc_pid_status(5)"), name)
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc_sys_kernel(5)");
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    (number(), number()) >= (Some(major), Some(minor))
}

/// What proc_pid_smaps(5) says of the mapping that the buffers lie in: the largest one
/// that is there and anonymous.
fn buffers_mapping(forebay: &Forebay) -> String {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", forebay.pid())).expect("smaps");
    let mut mappings: Vec<String> = Vec::new();
    for line in smaps.lines() {
        // A mapping begins with its addresses, its details with a capital letter.
        if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
            mappings.push(String::new());
        }
        let mapping = mappings.last_mut().expect("the first line begins one");
        *mapping = format!("{mapping}{line}\n");
    }
    let anonymous_bytes = |mapping: &String| kibibytes(mapping, "Anonymous:");
    mappings.into_iter().max_by_key(anonymous_bytes).expect("a mapping")
}

/// The number in the line of /proc that begins with `name`.
fn kibibytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("{name} in {text}"))
}

fn free_reserved_bytes() -> f64 {
    let memory = fs::read_to_string("/proc/meminfo").expect("proc_meminfo(5)");
    let count = memory
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse::<f64>().ok());
    count.unwrap_or(0.0) * 2.0 * 1024.0 * 1024.0
}
