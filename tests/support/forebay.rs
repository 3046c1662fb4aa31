//! The real binary with a configuration of the test's, ended when it goes out of scope.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ports::free_address;

/// How long anything that must happen may take before the test gives up on it. Not a
/// performance bound.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running forebay.
pub struct Forebay {
    child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log; ends with it.
    reader: Option<JoinHandle<()>>,
    /// Tells the metrics read last from newer ones.
    last_uptime: Mutex<String>,
    pub configuration_file: PathBuf,
}

impl Forebay {
    /// Writes `configuration` to `directory/forebay.toml`, adds an admin address, starts
    /// `forebay run` and waits until it serves.
    pub fn start(directory: &Path, configuration: &str) -> Self {
        Self::start_with(directory, configuration, |_| ())
    }

    /// As [`Self::start`], with something done to the command before it runs.
    pub fn start_with(
        directory: &Path,
        configuration: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut forebay = Self::spawn(directory, configuration, prepare);
        forebay.wait_until("it serves", |forebay| forebay.status("/ready") == Some(200));
        forebay
    }

    /// As [`Self::start_with`], without the wait: for starts that are to fail.
    pub fn spawn(
        directory: &Path,
        configuration: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let admin = free_address();
        let configuration_file = directory.join("forebay.toml");
        write_configuration(&configuration_file, configuration, admin);
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command
            .arg("run")
            .arg("-c")
            .arg(&configuration_file)
            .env_remove("FOREBAY_LOG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("forebay starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    log.lock().expect("log").push(line);
                }
            }
        });
        Self {
            child,
            admin,
            log,
            reader: Some(reader),
            last_uptime: Mutex::default(),
            configuration_file,
        }
    }

    /// Writes another configuration in the place of the one it was started with.
    pub fn write_configuration(&self, configuration: &str) {
        write_configuration(&self.configuration_file, configuration, self.admin);
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, e.g. `libc::SIGHUP`.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process number");
        // SAFETY: takes no pointers; the child has not been waited for, so the number is
        // its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill");
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }

    /// Waits for a line of the log that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let mut found = None;
        self.wait_until(&format!("the log says {text:?}"), |forebay| {
            found = forebay.log().into_iter().find(|line| line.contains(text));
            found.is_some()
        });
        found.expect("found")
    }

    /// The body of an admin page, of now: scrapes close together see the same metrics, and
    /// a test that asks once must not be shown what was before its last step.
    pub fn page(&self, path: &str) -> Option<String> {
        loop {
            let (_, body) = self.get(path)?;
            let uptime = body.lines().find(|line| line.starts_with("forebay_uptime_seconds "));
            let Some(uptime) = uptime else { return Some(body) };
            let mut last_uptime = self.last_uptime.lock().expect("last uptime");
            if *last_uptime != uptime {
                uptime.clone_into(&mut last_uptime);
                drop(last_uptime);
                return Some(body);
            }
            drop(last_uptime);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The status code of an admin page; `None` if nobody answers.
    pub fn status(&self, path: &str) -> Option<u16> {
        self.get(path).map(|(status, _)| status)
    }

    /// The sum of all series of a metric whose line, up to the value, contains every one
    /// of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.page("/metrics").expect("metrics");
        page.lines()
            .filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Waits until `condition` holds; fails the test with the log if it never does.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!(
                    "waiting until {what}: forebay ended with {status}\n{}",
                    self.log().join("\n")
                );
            }
            assert!(begin.elapsed() < PATIENCE, "waiting until {what}\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the process to end by itself; the log is complete then.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the log's reader");
                }
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "does not end\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let status = response.split(' ').nth(1)?.parse().ok()?;
        let body = response.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }
}

fn write_configuration(file: &Path, configuration: &str, admin: SocketAddr) {
    let text = format!("{configuration}\n[admin]\naddress = \"{admin}\"\n");
    fs::write(file, text).expect("write");
}

impl Drop for Forebay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("forebay's log:\n{}", self.log().join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
