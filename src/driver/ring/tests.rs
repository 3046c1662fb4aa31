//! The real ring against real sockets: what the engine relies on, checked on the kernel
//! that runs the tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::driver::BUFFER_HEADROOM_BYTES;

fn driver(buffers: usize, listeners: Vec<OwnedFd>) -> RingDriver {
    let doorbell = Arc::new(Doorbell::new().expect("eventfd"));
    RingDriver::new(RingSettings {
        buffers,
        large_buffers: 2,
        connections_max: 16,
        listeners,
        doorbell,
        huge_pages: Switch::Off,
        napi_busy_poll: Duration::ZERO,
        shares_its_cpu: false,
    })
    .expect("this machine runs io_uring")
}

fn token(slot: u32) -> Token {
    Token { kind: 1, slot, generation: 7 }
}

/// Turns until one completion arrives.
fn next(driver: &mut RingDriver) -> Completion {
    for _ in 0..1_000 {
        if let Some(completion) = driver.completion() {
            return completion;
        }
        driver.turn(Wait::AtMost(Duration::from_millis(100))).expect("turn");
    }
    panic!("no completion");
}

/// A driver with one accepted connection, and the client's end of it.
fn connected(buffers: usize) -> (RingDriver, Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let mut driver = driver(buffers, vec![listener.into()]);
    driver.accept(0, token(0));
    let client = TcpStream::connect(address).expect("connect");
    let Outcome::Accepted(Ok((socket, peer))) = next(&mut driver).outcome else {
        panic!("not accepted");
    };
    assert_eq!(peer, client.local_addr().expect("address"));
    assert_eq!(driver.local_address(&socket), Ok(address));
    (driver, socket, client)
}

#[test]
fn a_token_survives_the_way_through_the_kernel() {
    let token = Token { kind: 3, slot: Token::SLOT_LIMIT - 1, generation: 12_345 };
    for operation in Operation::ALL {
        for buffer in [0, 77, BUFFER_NONE] {
            assert_eq!(unpack(pack(operation, token, buffer)), (operation, token, buffer));
        }
    }
}

#[test]
fn data_arrives_behind_the_headroom_of_a_pool_buffer() {
    let (mut driver, socket, mut client) = connected(40);
    driver.receive(&socket, usize::MAX, Readiness::Unlikely, token(1));
    client.write_all(b"hello").expect("write");
    let completion = next(&mut driver);
    assert_eq!(completion.token, token(1));
    let Outcome::Received { result: Ok(5), buffer: Some(buffer), .. } = completion.outcome else {
        panic!("{completion:?}");
    };
    assert_eq!(&driver.bytes(&buffer)[BUFFER_HEADROOM_BYTES..][..5], b"hello");
    driver.release(buffer);
    assert_eq!(driver.buffers_free(), 40);
    driver.close(socket);
}

#[test]
fn the_end_of_the_stream_brings_no_buffer() {
    let (mut driver, socket, client) = connected(8);
    driver.receive(&socket, 100, Readiness::Likely, token(1));
    drop(client);
    let completion = next(&mut driver);
    assert!(
        matches!(completion.outcome, Outcome::Received { result: Ok(0), buffer: None, .. }),
        "{completion:?}"
    );
    assert_eq!(driver.buffers_free(), 8);
    driver.close(socket);
}

#[test]
fn a_receive_can_continue_in_the_middle_of_an_owned_buffer() {
    let (mut driver, socket, mut client) = connected(8);
    let buffer = driver.take_buffer().expect("free");
    driver.bytes_mut(&buffer)[..3].copy_from_slice(b"abc");
    driver.receive_into(&socket, buffer, 3..10, Readiness::Likely, token(2));
    client.write_all(b"defghijklmnop").expect("write");
    let completion = next(&mut driver);
    let Outcome::Received { result: Ok(7), buffer: Some(buffer), .. } = completion.outcome else {
        panic!("{completion:?}");
    };
    assert_eq!(&driver.bytes(&buffer)[..10], b"abcdefghij");
    driver.release(buffer);
    driver.close(socket);
}

#[test]
fn a_send_completes_only_when_all_of_it_is_taken() {
    let (mut driver, socket, mut client) = connected(600);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("read");
        all.len()
    });
    for round in 0..500 {
        let buffer = driver.take_buffer().expect("free");
        driver.send(&socket, buffer, 0..BUFFER_BYTES, token(round));
        let completion = next(&mut driver);
        let Outcome::Sent { result: Ok(BUFFER_BYTES), buffer } = completion.outcome else {
            panic!("{completion:?}");
        };
        driver.release(buffer);
    }
    driver.shutdown_write(&socket);
    assert_eq!(reader.join().expect("reader"), 500 * BUFFER_BYTES);
    driver.close(socket);
}

#[test]
fn a_dry_pool_fails_the_receive_and_loses_no_byte() {
    let (mut driver, socket, mut client) = connected(2);
    client.write_all(b"x").expect("write");
    let mut held = Vec::new();
    // Two buffers are in the kernel's ring: use both up.
    for slot in 0..2 {
        driver.receive(&socket, 1, Readiness::Unlikely, token(slot));
        let Outcome::Received { buffer: Some(buffer), .. } = next(&mut driver).outcome else {
            panic!("no data");
        };
        held.push(buffer);
        client.write_all(b"y").expect("write");
    }
    driver.receive(&socket, 1, Readiness::Likely, token(3));
    let completion = next(&mut driver);
    assert!(
        matches!(
            completion.outcome,
            Outcome::Received { result: Err(Errno(libc::ENOBUFS)), buffer: None, .. }
        ),
        "{completion:?}"
    );
    for buffer in held {
        driver.release(buffer);
    }
    driver.turn(Wait::Never).expect("turn");
    driver.receive(&socket, 1, Readiness::Likely, token(4));
    let completion = next(&mut driver);
    let Outcome::Received { result: Ok(1), buffer: Some(buffer), .. } = completion.outcome else {
        panic!("{completion:?}");
    };
    assert_eq!(driver.bytes(&buffer)[BUFFER_HEADROOM_BYTES], b'y');
    driver.release(buffer);
    driver.close(socket);
}

#[test]
fn cancelled_operations_complete_and_a_reset_shows_no_clean_end() {
    let (mut driver, socket, mut client) = connected(8);
    driver.receive(&socket, 100, Readiness::Unlikely, token(1));
    driver.turn(Wait::Never).expect("turn");
    driver.cancel(&socket);
    let completion = next(&mut driver);
    assert!(
        matches!(
            completion.outcome,
            Outcome::Received { result: Err(Errno(libc::ECANCELED)), buffer: None, .. }
        ),
        "{completion:?}"
    );
    assert_eq!(driver.in_flight(), 0);
    driver.reset(socket);
    driver.turn(Wait::Never).expect("turn");
    let error = client.read(&mut [0; 1]).expect_err("a reset, not an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_to_a_unix_socket_is_made() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("backend");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let mut driver = driver(4, Vec::new());
    let socket = driver.connect(&Endpoint::Unix(path), None, token(5)).expect("socket");
    let completion = next(&mut driver);
    assert!(matches!(completion.outcome, Outcome::Connected(Ok(()))), "{completion:?}");
    driver.close(socket);
}

#[test]
fn a_refused_connection_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let mut driver = driver(4, Vec::new());
    let socket = driver.connect(&Endpoint::Inet(address), None, token(5)).expect("socket");
    let completion = next(&mut driver);
    assert!(
        matches!(completion.outcome, Outcome::Connected(Err(Errno(libc::ECONNREFUSED)))),
        "{completion:?}"
    );
    driver.close(socket);
}

#[test]
fn the_doorbell_ends_a_sleep() {
    let doorbell = Arc::new(Doorbell::new().expect("eventfd"));
    let settings = RingSettings {
        buffers: 4,
        large_buffers: 0,
        connections_max: 4,
        listeners: Vec::new(),
        doorbell: Arc::clone(&doorbell),
        huge_pages: Switch::Off,
        napi_busy_poll: Duration::ZERO,
        shares_its_cpu: false,
    };
    let mut driver = RingDriver::new(settings).expect("ring");
    for _ in 0..3 {
        driver.prepare_sleep();
        let doorbell = Arc::clone(&doorbell);
        let ringer = std::thread::spawn(move || doorbell.ring());
        // Would sleep for ever if the bell were lost.
        driver.turn(Wait::Forever).expect("turn");
        assert!(driver.completion().is_none(), "the bell is not the engine's business");
        ringer.join().expect("ringer");
    }
}

#[test]
fn a_turn_that_waits_returns_with_something_to_do() {
    let (mut driver, socket, mut client) = connected(8);
    for round in 0..3 {
        driver.receive(&socket, 100, Readiness::Unlikely, token(round));
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            client.write_all(b"hello").expect("write");
            client
        });
        driver.turn(Wait::Forever).expect("turn");
        // Not for what was handed out in an earlier turn.
        let completion = driver.completion().expect("a completion ended the wait");
        let Outcome::Received { result: Ok(5), buffer: Some(buffer), .. } = completion.outcome
        else {
            panic!("{completion:?}");
        };
        driver.release(buffer);
        client = writer.join().expect("the client");
    }
    driver.close(socket);
}

#[test]
fn accepts_end_when_cancelled() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut driver = driver(4, vec![listener.into()]);
    driver.accept(0, token(0));
    driver.accept(0, token(0));
    driver.turn(Wait::Never).expect("turn");
    driver.cancel_accepts(0);
    for _ in 0..2 {
        let completion = next(&mut driver);
        assert!(
            matches!(completion.outcome, Outcome::Accepted(Err(Errno(libc::ECANCELED)))),
            "{completion:?}"
        );
    }
    driver.close_listener(0);
}

#[test]
fn a_connect_to_a_full_unix_backlog_waits_for_room_and_can_be_cancelled() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("backend");
    let listener =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("socket");
    listener.bind(&socket2::SockAddr::unix(&path).expect("path")).expect("bind");
    listener.listen(0).expect("listen");
    let mut driver = driver(4, Vec::new());
    let mut connect = |slot| {
        let endpoint = Endpoint::Unix(path.clone());
        driver.connect(&endpoint, None, token(slot)).expect("socket")
    };
    let sockets = [connect(0), connect(1), connect(2)];
    let connected = |completion: Completion| match completion.outcome {
        Outcome::Connected(result) => (completion.token.slot, result),
        _ => panic!("{completion:?}"),
    };
    assert_eq!(connected(next(&mut driver)), (0, Ok(())), "the one that has room");
    // A cancellation can miss an operation that the kernel is just then moving to a
    // thread of its own: the engine asks again, and so does this test.
    let completion = loop {
        driver.cancel(&sockets[1]);
        driver.turn(Wait::AtMost(Duration::from_millis(10))).expect("turn");
        if let Some(completion) = driver.completion() {
            break completion;
        }
    };
    let (slot, result) = connected(completion);
    // The kernel may have handed it to a thread of its own, which a signal ends.
    assert!(matches!(result, Err(Errno(libc::ECANCELED | libc::EINTR))), "{slot} {result:?}");
    assert_eq!(slot, 1);
    listener.accept().expect("accept");
    assert_eq!(connected(next(&mut driver)), (2, Ok(())), "once the first was accepted");
    sockets.into_iter().for_each(|socket| driver.close(socket));
}
