//! A network that a test has to itself.

use std::io;
use std::process::Command;
use std::thread;

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

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
}
