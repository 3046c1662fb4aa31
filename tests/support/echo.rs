//! A backend that sends back what it gets and remembers how each connection ended. One
//! thread for any number of connections.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// What the backend saw of a connection that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Bytes received.
    pub bytes: u64,
    /// The stream ended in order; `false`: it was reset.
    pub in_order: bool,
}

/// A running backend, ended when it goes out of scope.
pub struct EchoBackend {
    pub address: SocketAddr,
    endings: Arc<Mutex<Vec<Ending>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoBackend {
    /// Starts on a free port, on the CPUs of the calling thread.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("address");
        let endings = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (endings, stop) = (Arc::clone(&endings), Arc::clone(&stop));
            move || Echo::new(listener, endings).run(&stop)
        });
        Self { address, endings, stop, thread: Some(thread) }
    }

    /// The connections that are over, in the order of their ends.
    pub fn endings(&self) -> Vec<Ending> {
        self.endings.lock().expect("endings").clone()
    }
}

impl Drop for EchoBackend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the backend failed");
        }
    }
}

const LISTENER: u64 = 0;

struct Echo {
    listener: TcpListener,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    next_key: u64,
    endings: Arc<Mutex<Vec<Ending>>>,
    scratch: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// Received and not sent back yet. Nothing is received while there is any.
    pending: VecDeque<u8>,
    bytes: u64,
}

impl Echo {
    fn new(listener: TcpListener, endings: Arc<Mutex<Vec<Ending>>>) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN).expect("epoll");
        Self {
            listener,
            epoll,
            connections: HashMap::new(),
            next_key: LISTENER + 1,
            endings,
            scratch: vec![0; 64 * 1024],
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut events = Vec::with_capacity(256);
        let look_up = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        while !stop.load(Ordering::Relaxed) {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&look_up)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            for event in events.drain(..) {
                let epoll::Event { data, .. } = event;
                match data.u64() {
                    LISTENER => self.accept(),
                    key => self.serve(key),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("non-blocking");
            let _ = stream.set_nodelay(true);
            let data = epoll::EventData::new_u64(self.next_key);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).expect("epoll");
            let connection = Connection { stream, pending: VecDeque::new(), bytes: 0 };
            self.connections.insert(self.next_key, connection);
            self.next_key += 1;
        }
    }

    fn serve(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let had_pending = !connection.pending.is_empty();
        match connection.serve(&mut self.scratch) {
            Some(in_order) => {
                let ending = Ending { bytes: connection.bytes, in_order };
                self.endings.lock().expect("endings").push(ending);
                // Closing it takes it out of the epoll set.
                self.connections.remove(&key);
            }
            None if had_pending == connection.pending.is_empty() => {
                let wanted =
                    if had_pending { epoll::EventFlags::IN } else { epoll::EventFlags::OUT };
                let data = epoll::EventData::new_u64(key);
                epoll::modify(&self.epoll, &connection.stream, data, wanted).expect("epoll");
            }
            None => {}
        }
    }
}

impl Connection {
    /// Sends and receives until one would wait. `Some` when the connection is over: whether
    /// in order.
    fn serve(&mut self, scratch: &mut [u8]) -> Option<bool> {
        loop {
            while !self.pending.is_empty() {
                let (front, _) = self.pending.as_slices();
                match self.stream.write(front) {
                    Ok(count) => drop(self.pending.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                    Err(_) => return Some(false),
                }
            }
            match self.stream.read(scratch) {
                Ok(0) => return Some(true),
                Ok(count) => {
                    self.bytes += count as u64;
                    self.pending.extend(&scratch[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(false),
            }
        }
    }
}
