//! What N certificates cost: the start of the real program with and without an index of
//! their files, memory, a reload of a few that have changed, looking one up, and reading one
//! that is not in memory; beside HAProxy's start and memory with the same files.
//!
//! ```text
//! cargo bench --bench certificate_store -- 1 1000 100000      one line of JSON for each
//! ```
//!
//! `scripts/certificates-bench` makes a table of it. The files have one P-256 key and
//! distinct names, so that making them takes no time worth speaking of; no program knows
//! that the keys are equal.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use forebay::config;
use forebay::control::prepare::{self, CertificateSource, Preparer};
use forebay::control::session_keys::SessionKeys;
use forebay::control::watch::{Changed, Told, Watch};
use forebay::tls::certificates::store::Look;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Map, Value, json};

// As the program does, which has it from the same crate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Certificates that are renewed between two loads.
const CHANGED: usize = 10;

/// The longest that a program may take to start.
const START_MAX: Duration = Duration::from_secs(120);

/// Reloads of each kind, of which the median counts.
const RELOADS: usize = 5;

fn main() -> anyhow::Result<()> {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let counts: Result<Vec<usize>, _> = arguments.map(|text| text.parse()).collect();
    let counts = counts.context("arguments are numbers of certificates")?;
    let [forebay_base, haproxy_base] = {
        let bench = Bench::new(1)?;
        [Some(bench.forebay(None)?), bench.haproxy()?].map(|one| one.map(|one| one.memory_bytes))
    };
    for count in if counts.is_empty() { vec![1, 1_000] } else { counts } {
        let bench = Bench::new(count)?;
        let mut figures = Map::new();
        figures.insert("certificates".into(), count.into());
        let index = bench.directory.path().join("certificates.index");
        bench.forebay(Some(&index))?.add_to("start", count, forebay_base, &mut figures);
        bench.wait_for(&index)?;
        bench.forebay(Some(&index))?.add_to("start_with_index", count, forebay_base, &mut figures);
        figures.insert("index_bytes".into(), fs::metadata(&index)?.len().into());
        match bench.haproxy()? {
            Some(started) => started.add_to("haproxy_start", count, haproxy_base, &mut figures),
            None => figures.extend([("haproxy_start_ms".into(), Value::Null)]),
        }
        bench.reloads(&mut figures)?;
        println!("{}", Value::Object(figures));
    }
    Ok(())
}

/// A directory of certificates, and what is started on it.
struct Bench {
    directory: tempfile::TempDir,
    served: PathBuf,
    count: usize,
    key: KeyPair,
}

/// What a program came to.
struct Started {
    wall: Duration,
    cpu: Duration,
    memory_bytes: u64,
}

impl Started {
    fn add_to(
        &self,
        what: &str,
        count: usize,
        base_bytes: Option<u64>,
        figures: &mut Map<String, Value>,
    ) {
        figures.insert(format!("{what}_ms"), milliseconds(self.wall));
        figures.insert(format!("{what}_cpu_ms"), milliseconds(self.cpu));
        if let Some(base_bytes) = base_bytes
            && count >= 1_000
        {
            let each = self.memory_bytes.saturating_sub(base_bytes) / (count as u64 - 1);
            figures.insert(format!("{what}_memory_bytes_each"), each.into());
        }
    }
}

impl Bench {
    fn new(count: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let served = directory.path().join("served");
        fs::create_dir(&served)?;
        let bench = Self { directory, served, count, key: KeyPair::generate()? };
        for number in 0..count {
            bench.write(number)?;
        }
        Ok(bench)
    }

    fn write(&self, number: usize) -> anyhow::Result<PathBuf> {
        let parameters = CertificateParams::new([name(number)])?;
        let certificate = parameters.self_signed(&self.key)?;
        let path = self.served.join(format!("{number}.pem"));
        let beside = self.directory.path().join("beside");
        fs::write(&beside, [certificate.pem(), self.key.serialize_pem()].concat())?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, &path)?;
        Ok(path)
    }

    fn configuration(&self, index: Option<&Path>, port: u16) -> anyhow::Result<PathBuf> {
        let served = self.served.display();
        let index = index.map(|path| format!("certificate_index = {:?}", path.display()));
        let path = self.directory.path().join("forebay.toml");
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:{port}\"\ncertificates = [\"{served}\"]\n\
             pool = \"web\"\n[[pool]]\nname = \"web\"\nbackends = [\"127.0.0.1:1\"]\n\
             [engine]\nengines = 1\nmax_connections = 100\n\
             [handshake]\nworkers = 1\ncalibrate = false\n\
             [tls]\nkeys_in_memory = 1\n{}\n[log]\nlevel = \"warn\"\n",
            index.unwrap_or_default()
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    fn forebay(&self, index: Option<&Path>) -> anyhow::Result<Started> {
        let port = free_port()?;
        let configuration = self.configuration(index, port)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("run").arg("-c").arg(configuration);
        start(command, port)?.context("forebay did not start in time")
    }

    /// `None` if it is not installed, or does not start in time.
    fn haproxy(&self) -> anyhow::Result<Option<Started>> {
        if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let port = free_port()?;
        let path = self.directory.path().join("haproxy.cfg");
        let text = format!(
            "global\n  maxconn 100\n  nbthread 1\ndefaults\n  mode tcp\n  timeout client 1s\n  \
             timeout server 1s\n  timeout connect 1s\nfrontend f\n  \
             bind 127.0.0.1:{port} ssl crt {}\n  default_backend b\nbackend b\n  \
             server s 127.0.0.1:1\n",
            self.served.display()
        );
        fs::write(&path, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(path);
        start(command, port)
    }

    fn wait_for(&self, file: &Path) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !file.exists() {
            if begin.elapsed() > START_MAX {
                bail!("no index was written");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What a reload comes to, as the control thread does it.
    fn reloads(&self, figures: &mut Map<String, Value>) -> anyhow::Result<()> {
        let (settings, findings) = config::load(&self.configuration(None, free_port()?)?);
        let settings = settings.with_context(|| format!("{findings:?}"))?;
        let bound = prepare::addresses(&settings);
        let mut preparer = Preparer::new(CertificateSource::Files, SessionKeys::default());
        let mut in_force = preparer.prepare(&settings, &bound, 1).0.context("prepared")?;
        let mut watch = Watch::default();
        watch.set(prepare::certificate_places(&settings));
        let reloads = [("named", true, false), ("asked", true, true), ("all", false, true)];
        for (what, told, asked) in reloads {
            let mut times = Vec::new();
            for _ in 0..RELOADS {
                let changed: anyhow::Result<HashSet<PathBuf>> =
                    (0..CHANGED.min(self.count)).map(|number| self.write(number)).collect();
                let changed = changed?;
                let begin = Instant::now();
                let by_the_kernel = watch.take(begin);
                if by_the_kernel
                    != (Told { changed: Changed::Files(changed.clone()), is_all: true })
                {
                    bail!("{by_the_kernel:?} of {}", self.served.display());
                }
                let look = match (told, asked) {
                    (false, _) => Look::Everywhere,
                    (true, true) => Look::Asked(&changed),
                    (true, false) => Look::Changed(&changed),
                };
                let prepared = preparer.prepare_again(&settings, look, &bound, 2, Vec::new());
                times.push(begin.elapsed());
                in_force = prepared.0.context("prepared")?;
            }
            times.sort();
            figures.insert(format!("reload_{what}_ms"), milliseconds(times[RELOADS / 2]));
        }
        let index = in_force.snapshot.listeners[0].policy.index();
        let names: Vec<String> =
            (0..self.count).map(|number| name(number * 7_919 % self.count)).collect();
        let begin = Instant::now();
        let found = names.iter().filter(|name| !index.find(name).is_empty()).count();
        let looking_up = begin.elapsed();
        if found != self.count {
            bail!("{found} of {} names were found", self.count);
        }
        figures.insert("look_up_ns".into(), json!(looking_up.as_nanos() as f64 / found as f64));
        if self.count >= 2 {
            // With room for one key, each of two takes the other's place.
            const READS: u32 = 100;
            let begin = Instant::now();
            for _ in 0..READS / 2 {
                for certificate in &index.certificates()[..2] {
                    certificate.signing.certified().context("readable")?;
                }
            }
            let reading = begin.elapsed() / READS;
            figures.insert("read_again_us".into(), json!(reading.as_nanos() as f64 / 1_000.0));
        }
        Ok(())
    }
}

/// Starts a program, waits until it listens, measures it, and ends it.
fn start(mut command: Command, port: u16) -> anyhow::Result<Option<Started>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let mut running = Running(command.spawn()?);
    while !listens(port) {
        if let Some(status) = running.0.try_wait()? {
            bail!("{command:?} ended with {status} instead of listening");
        }
        if begin.elapsed() > START_MAX {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let wall = begin.elapsed();
    let cpu = cpu_time(running.0.id())?;
    // What the start made and needs no more is given back meanwhile.
    std::thread::sleep(Duration::from_secs(1));
    let memory_bytes = memory_bytes(running.0.id())?;
    Ok(Some(Started { wall, cpu, memory_bytes }))
}

/// Whether somebody accepts connections. A socket that happens to be given the very port
/// that it connects to is connected with itself.
fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect(address)
        .and_then(|stream| stream.local_addr())
        .is_ok_and(|local| local != address)
}

/// A port for one start: the kernel keeps the sockets of an io_uring for a moment after the
/// process has ended, so that another start on the same port would seem to listen at once.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(number: usize) -> String {
    format!("www.customer-{number}.example.com")
}

fn milliseconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// User and system time of a process: proc_pid_stat(5).
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Proportional set size of a process: proc_pid_smaps_rollup(5).
fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1_024)
}
