//! A network that a test has to itself.

use std::io;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::forebay::PATIENCE;

/// Runs `test` on a thread in a network namespace of its own, in which the loopback
/// interface is up and every address of `local` is this machine's. Processes that it
/// starts are in there too. Without the right to make one, says so and runs nothing.
pub fn in_a_network_of_its_own(local: &str, test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: takes no pointers; of this thread only, which ends with the test.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                let error = io::Error::last_os_error();
                eprintln!("not tested: no network namespace can be made here: {error}");
                return;
            }
            ip(&["link", "set", "lo", "up"]);
            ip(&["route", "add", "local", local, "dev", "lo"]);
            test();
        });
        inside.join().expect("the test in its network");
    });
}

/// A machine in a network of its own, with a cable to that of the calling thread: a thread
/// that does what it is told there.
pub struct Neighbour {
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// The cable is called `cable` at both ends; `ours` and `theirs` are the addresses there,
    /// with their prefixes.
    pub fn new(cable: &str, ours: &[&str], theirs: &[&str]) -> Self {
        let (jobs, to_do) = channel::<Box<dyn FnOnce() + Send>>();
        let (number, is_there) = channel();
        let thread = thread::spawn(move || {
            // SAFETY: takes no pointers; of this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a second namespace");
            // SAFETY: takes nothing and cannot fail.
            number.send(unsafe { libc::gettid() }).expect("heard");
            to_do.iter().for_each(|job| job());
        });
        let thread_number = is_there.recv().expect("a thread").to_string();
        let there = format!("{cable}-there");
        ip(&["link", "add", cable, "type", "veth", "peer", "name", &there]);
        ip(&["link", "set", &there, "netns", &thread_number]);
        connect_cable(cable, ours);
        let neighbour = Self { jobs: Some(jobs), thread: Some(thread) };
        let theirs: Vec<String> = theirs.iter().map(|one| (*one).to_owned()).collect();
        neighbour.run(move || {
            ip(&["link", "set", "lo", "up"]);
            let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
            connect_cable(&there, &theirs);
        });
        neighbour
    }

    /// Does this there, and waits for what comes of it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, is_done) = channel();
        let job = Box::new(move || {
            let _ = result.send(job());
        });
        self.jobs.as_ref().expect("it lives").send(job).expect("it lives");
        is_done.recv_timeout(PATIENCE).expect("done in time")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().expect("once").join();
        assert!(ended.is_ok() || thread::panicking(), "the neighbour failed");
    }
}

fn connect_cable(cable: &str, addresses: &[&str]) {
    for address in addresses {
        match address.contains(':') {
            true => ip(&["addr", "add", address, "dev", cable, "nodad"]),
            false => ip(&["addr", "add", address, "dev", cable]),
        }
    }
    ip(&["link", "set", cable, "up"]);
}

/// Runs `ip` with these arguments, in the network of the calling thread.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
}
