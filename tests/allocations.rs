//! The promise that the data path allocates nothing: an engine thread relays records
//! while its heap use is counted.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use forebay::driver::ring::{ACCEPTS_IN_FLIGHT, Doorbell, RingDriver, RingSettings};
use forebay::endpoint::Endpoint;
use forebay::engine::events::event_queue;
use forebay::engine::metrics::EngineMetrics;
use forebay::engine::snapshot::{ClientLimits, Listener, Records, Snapshot, Timeouts};
use forebay::engine::{Command, CommandQueue, Engine, Limits, Ways};
use forebay::handshake::StepCosts;
use forebay::handshake::inline::InlineService;
use forebay::handshake::scheduler::SchedulerSettings;
use forebay::routing::Routes;
use forebay::switch::{Spin, Switch};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::{CryptoLibrary, self_signed, tickets};
use forebay::upstream::{Backend, Balance, Pool};
use support::tls_client;

/// Counts heap calls of threads that asked to be counted, while counting is on.
struct CountingAllocator;

static COUNTING: AtomicBool = AtomicBool::new(false);
static HEAP_CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if COUNTING.load(Ordering::Relaxed) && COUNTED.get() {
        HEAP_CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the pointer came from `alloc`, that is from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 800;
const RECORDS_PER_ROUND: usize = 16;
const RECORD_BYTES: usize = 1_024;

#[test]
fn relaying_a_hundred_thousand_records_makes_no_heap_call_on_the_engine() {
    let backend = echo_server();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    // Accepted sockets inherit it, as from the listeners that a start makes.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true).expect("nodelay");
    let address = listener.local_addr().expect("address");
    let commands = CommandQueue::default();
    let doorbell = Arc::new(Doorbell::new().expect("eventfd"));
    let metrics = Arc::new(EngineMetrics::default());
    let engine = thread::spawn({
        let (commands, doorbell) = (commands.clone(), Arc::clone(&doorbell));
        let metrics = Arc::clone(&metrics);
        move || {
            COUNTED.set(true);
            run_engine(listener, backend, commands, doorbell, metrics);
        }
    });

    let config = Arc::new(tls_client::config());
    let mut clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = tls_client::connect(Arc::clone(&config), address, "localhost");
            exchange(&mut client);
            client
        })
        .collect();

    let opened = metrics.records_opened.value();
    let sealed = metrics.records_sealed.value();
    COUNTING.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(move || (0..ROUNDS).for_each(|_| exchange(client)));
        }
    });
    COUNTING.store(false, Ordering::SeqCst);

    let opened = metrics.records_opened.value() - opened;
    let sealed = metrics.records_sealed.value() - sealed;
    assert!(opened + sealed >= 100_000, "only {opened} opened and {sealed} sealed");
    assert_eq!(HEAP_CALLS.load(Ordering::SeqCst), 0, "heap calls on the engine thread");

    drop(clients);
    commands.send(Command::Stop).expect("room for a command");
    doorbell.ring();
    engine.join().expect("engine");
}

/// Sends records and reads their echo.
fn exchange(client: &mut tls_client::TlsStream) {
    let record = [0x5a; RECORD_BYTES];
    for _ in 0..RECORDS_PER_ROUND {
        client.write_all(&record).expect("write");
    }
    let mut echo = [0; RECORD_BYTES * RECORDS_PER_ROUND];
    client.read_exact(&mut echo).expect("echo");
}

fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            stream.set_nodelay(true).expect("nodelay");
            thread::spawn(move || {
                let mut bytes = [0; 4 * RECORD_BYTES];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn run_engine(
    listener: TcpListener,
    backend: SocketAddr,
    commands: CommandQueue,
    doorbell: Arc<Doorbell>,
    metrics: Arc<EngineMetrics>,
) {
    let library = CryptoLibrary::AwsLc;
    let certificate = self_signed::self_signed(&["localhost"], library).expect("certificate");
    let tickets = tickets::per_process(library).expect("tickets");
    let policy = Policy::new(PolicySettings::new(library, vec![certificate], tickets));
    let endpoint = Endpoint::Inet(backend);
    let snapshot = Snapshot {
        generation: 1,
        listeners: [Listener {
            name: "main".into(),
            policy: Arc::new(policy.expect("policy")),
            shadow: None,
            pool: 0,
            routes: Routes::default(),
            header_senders: Vec::new(),
        }]
        .into(),
        pools: vec![Arc::new(Pool {
            balance: Balance::LeastConnections,
            ..Pool::new("echo", vec![Backend::new(endpoint, 1)])
        })],
        timeouts: Timeouts {
            client_hello: Duration::from_secs(60),
            handshake: Duration::from_secs(60),
            queue: Duration::from_secs(60),
            connect: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            half_closed: Duration::from_secs(60),
            first_data_wait: Duration::ZERO,
        },
        records: Records { small_bytes: 16 << 10, strict_truncation: false },
        limits: ClientLimits::NONE,
    };
    let settings = RingSettings {
        buffers: 64,
        large_buffers: 4,
        connections_max: 32,
        listeners: vec![listener.into()],
        doorbell,
        huge_pages: Switch::Off,
        napi_busy_poll: Duration::ZERO,
        shares_its_cpu: false,
    };
    let driver = RingDriver::new(settings).expect("ring");
    let service = InlineService::new(0, 8, &SchedulerSettings::with_room(8), library);
    let limits = Limits {
        connections: 32,
        credits: 8,
        accepts: ACCEPTS_IN_FLIGHT,
        engines: 1,
        patience: Duration::from_millis(100),
        step_costs: StepCosts::TYPICAL,
        backlog: Duration::from_secs(1),
        queue: 1_024,
        queue_in_crowd: 64,
        spin: Spin::Off,
    };
    let (events, _source) = event_queue();
    let mut engine = Engine::new(
        0,
        driver,
        service,
        limits,
        Arc::new(snapshot),
        Ways { commands, metrics, events },
    );
    engine.run().expect("engine");
}
