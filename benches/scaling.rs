//! What a second handshake worker adds, with the data path idle.
//!
//! One thread hands in the first step of real handshakes, whose ClientHellos it has at
//! hand, and takes the results: little work, so that two CPUs are the workers' own. Rounds
//! with one and two workers alternate. Printed are steps a second and CPU time for each
//! step of both; were there a line of memory that workers write in turn, two of them would
//! need more time for each.
//!
//! `cargo bench --bench scaling`, `-- [--rounds N] [--seconds S] [--json]`; also a row of
//! `scripts/compare`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use forebay::clock::Moment;
use forebay::handshake::scheduler::SchedulerSettings;
use forebay::handshake::step::step;
use forebay::handshake::workers::{
    EngineLink, OffloadService, WakeEngine, Workers, WorkersSettings,
};
use forebay::handshake::{HandshakeService, StepOutcome, Task};
use forebay::tls::client_hello::{CLIENT_HELLO_BYTES_MAX, Scan, scan};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::self_signed::self_signed;
use forebay::tls::{CryptoLibrary, tickets, unverified};
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIBRARY: CryptoLibrary = CryptoLibrary::AwsLc;
const SERVER_NAME: &str = "www.example.com";

/// Steps under way: enough that no worker ever waits for one.
const CREDITS: u32 = 256;

fn main() -> anyhow::Result<()> {
    let (mut rounds, mut span, mut as_json) = (1, Duration::from_millis(20), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{option} needs a value"));
        match option.as_str() {
            "--bench" => (rounds, span) = (9, Duration::from_secs(1)),
            "--json" => as_json = true,
            "--rounds" => rounds = value()?.parse().context("--rounds")?,
            "--seconds" => span = Duration::try_from_secs_f64(value()?.parse()?)?,
            other => bail!("unknown option {other:?}"),
        }
    }
    let cpus: Vec<_> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|cpu| cpu.id).collect();
    let hello = Hello::new()?;
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (workers, samples) in measured.iter_mut().enumerate() {
            let count = NonZeroUsize::new(workers + 1).context("at least one worker")?;
            samples.push(Sample::take(count, &cpus, &hello, span)?);
        }
    }
    let [one, two] = measured.map(|samples| {
        let rate = median(samples.iter().map(|sample| sample.steps_per_second));
        let cost = median(samples.iter().map(|sample| sample.cpu_us_per_step));
        (rate, cost)
    });
    if as_json {
        let of = |(rate, cost)| json!({ "steps_per_second": rate, "cpu_us_per_step": cost });
        println!(
            "{}",
            json!({ "cpus": cpus.len(), "rounds": rounds, "one": of(one), "two": of(two) })
        );
    } else {
        println!("one worker:  {:8.0} steps a second, {:6.1} µs of CPU each", one.0, one.1);
        println!("two workers: {:8.0} steps a second, {:6.1} µs of CPU each", two.0, two.1);
        println!("two / one:   {:8.2} {:>24.3}", two.0 / one.0, two.1 / one.1);
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A client's first flight and how the server answers it.
struct Hello {
    record: Vec<u8>,
    config: Arc<ServerConfig>,
}

impl Hello {
    fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = unverified::any_certificate(&provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.cert_decompressors = Vec::new();
        let mut client = ClientConnection::new(Arc::new(config), SERVER_NAME.try_into()?)?;
        let mut stream = Vec::new();
        client.write_tls(&mut stream)?;

        let certificate = self_signed(&[SERVER_NAME], LIBRARY)?;
        let tickets = tickets::per_process(LIBRARY)?;
        let policy = Policy::new(PolicySettings::new(LIBRARY, vec![certificate], tickets))?;
        let mut scratch = Box::new([0; CLIENT_HELLO_BYTES_MAX]);
        let Scan::Complete(hello) = scan(&stream, &mut scratch) else {
            bail!("a client's first flight is no ClientHello");
        };
        let admission = policy.admit(&hello, None).ok().context("the policy refuses the client")?;
        let mut record = Vec::new();
        hello.append_as_one_record(&mut record);
        Ok(Self { record, config: admission.config })
    }

    fn submit(&self, mut task: Box<Task>, service: &mut OffloadService) -> anyhow::Result<()> {
        task.config = Some(Arc::clone(&self.config));
        task.input.extend_from_slice(&self.record);
        task.submitted = Moment::now();
        task.deadline = task.submitted.after(Duration::from_secs(60));
        service.submit(task).ok().context("there is room for every credit")
    }
}

struct Sample {
    steps_per_second: f64,
    cpu_us_per_step: f64,
}

impl Sample {
    fn take(
        workers: NonZeroUsize,
        cpus: &[usize],
        hello: &Hello,
        span: Duration,
    ) -> anyhow::Result<Self> {
        let settings = WorkersSettings {
            count: workers,
            cpus: cpus.to_vec(),
            engine_cpus: Vec::new(),
            prepare_sharing: || {},
            scheduler: SchedulerSettings::with_room(CREDITS as usize),
            library: LIBRARY,
            fingerprints: false,
        };
        let link = EngineLink { credits: CREDITS, wake: Arc::new(Awake) };
        // A handshake that ends after its first step: what it leaves is the worker's to
        // clear away, as when it ends after its last.
        let (workers, mut services) = Workers::start_with(&settings, vec![link], |task| {
            step(task, LIBRARY);
            assert!(matches!(task.outcome, StepOutcome::NeedsInput), "the flight is there");
            task.reset();
        })?;
        let service = &mut services[0];
        for credit in 0..CREDITS {
            hello.submit(Box::new(Task::new(0, credit)), service)?;
        }
        // Everything has been touched once, and every worker is busy.
        for _ in 0..CREDITS {
            hello.submit(next_result(service), service)?;
        }
        let (began, cpu_began) = (Instant::now(), cpu_time());
        let mut steps = 0_u32;
        while began.elapsed() < span {
            hello.submit(next_result(service), service)?;
            steps += 1;
        }
        let (elapsed, cpu) = (began.elapsed(), cpu_time() - cpu_began);
        workers.stop();
        Ok(Self {
            steps_per_second: f64::from(steps) / elapsed.as_secs_f64(),
            cpu_us_per_step: cpu.as_secs_f64() * 1e6 / f64::from(steps),
        })
    }
}

fn next_result(service: &mut OffloadService) -> Box<Task> {
    loop {
        if let Some(task) = service.next_result() {
            return task;
        }
        // Results of a while come together, so that this thread seldom runs.
        thread::sleep(Duration::from_millis(2));
    }
}

/// The thread that feeds looks by itself.
struct Awake;

impl WakeEngine for Awake {
    fn wake(&self) {}
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
