//! Programs of others: servers in the foreground, ended when they go out of scope, and
//! clients that run to their end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::forebay::PATIENCE;

/// A command for `name`, also found where Debian keeps servers.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// A server that runs in the foreground.
pub struct Server {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it and waits until something accepts at `address`.
    pub fn start(command: Command, address: SocketAddr) -> Self {
        Self::start_with_input(command, Stdio::null(), address)
    }

    /// The same with a way to [`tell`](Self::tell) it something.
    pub fn start_interactive(command: Command, address: SocketAddr) -> Self {
        Self::start_with_input(command, Stdio::piped(), address)
    }

    fn start_with_input(mut command: Command, input: Stdio, address: SocketAddr) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect_lines(child.stdout.take().expect("piped"), &lines);
        collect_lines(child.stderr.take().expect("piped"), &lines);
        let mut server = Self { name, child, lines };
        server.wait_until("it accepts", |_| TcpStream::connect(address).ok());
        server
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("it was started to be told something");
        // In one piece: some take what they read at once for a line.
        input.write_all(format!("{line}\n").as_bytes()).expect("write");
    }

    /// Waits for a line of its output that `pick` makes something of.
    pub fn wait_for_line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        self.wait_until(what, |lines| lines.iter().find_map(|line| pick(line)))
    }

    /// Waits until `condition` makes something of all its lines.
    pub fn wait_until<T>(&mut self, what: &str, condition: impl Fn(&[String]) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            let lines = self.lines.lock().expect("lines").clone();
            if let Some(found) = condition(&lines) {
                return found;
            }
            let ended = self.child.try_wait().expect("wait");
            assert!(
                ended.is_none() && begin.elapsed() < PATIENCE,
                "{}, waiting until {what} ({ended:?}):\n{}",
                self.name,
                lines.join("\n")
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.lines.lock().expect("lines").join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client left behind.
pub struct Finished {
    /// Its exit status was zero.
    pub success: bool,
    /// Standard output, then standard error, read as text.
    pub text: String,
}

impl Finished {
    /// Fails the test unless the client was content and its output contains every part.
    #[track_caller]
    pub fn assert_success(&self, parts: &[&str]) {
        assert!(self.success, "{}", self.text);
        self.assert_contains(parts);
    }

    /// Fails the test unless the client complained and its output contains every part.
    #[track_caller]
    pub fn assert_failure(&self, parts: &[&str]) {
        assert!(!self.success, "{}", self.text);
        self.assert_contains(parts);
    }

    #[track_caller]
    fn assert_contains(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "no {part:?} in:\n{}", self.text);
        }
    }
}

/// Runs a client to its end. Its standard input stays open behind `input`: many take the
/// end of it for a wish to leave before the answer is there.
pub fn run(mut command: Command, input: &str) -> Finished {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let output = read_to_end(child.stdout.take().expect("piped"));
    let errors = read_to_end(child.stderr.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    // A client that was refused does not read it.
    let _ = stdin.write_all(input.as_bytes());
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break Some(status);
        }
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    drop(stdin);
    let text = output.join().expect("output") + &errors.join().expect("errors");
    let status = status.unwrap_or_else(|| panic!("{name} does not end:\n{text}"));
    Finished { success: status.success(), text }
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        panic!("{:?}: {error}; scripts/test installs what the tests start", command.get_program())
    })
}

fn collect_lines(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().expect("lines").push(line);
        }
    });
}

fn read_to_end(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
