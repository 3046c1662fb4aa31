//! Over real UNIX sockets, with clients that behave and clients that do not.

use std::os::unix::fs::PermissionsExt;

use super::super::proxy_header::tests::full_header;
use super::*;

const PATIENT: Limits = Limits { connections_max: 16, request_timeout: Duration::from_secs(600) };

fn responder(limits: Limits) -> Responder {
    Responder::start(&std::env::temp_dir(), limits).expect("a responder")
}

/// Connects and sends `bytes`.
fn connect(responder: &Responder, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(responder.path()).expect("connected");
    // A server that hangs fails the test instead of hanging it.
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    stream
}

/// Sends the PROXY header and `request`, ends the sending side, reads to the end.
fn exchange(responder: &Responder, request: &[u8]) -> String {
    let stream = connect(responder, &[&full_header(), request].concat());
    stream.shutdown(Shutdown::Write).expect("half closed");
    read_all(stream)
}

fn read_all(mut stream: UnixStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("the whole response");
    response
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or(response)
}

#[test]
fn the_page_shows_what_was_handed_over() {
    let response = exchange(&responder(PATIENT), b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status(&response), "200");
    assert!(response.contains("Content-Type: text/plain"));
    for fact in ["192.0.2.7:4711", "shop.example", "TLSv1.3", "GET /hello"] {
        assert!(response.contains(fact), "{fact} in {response}");
    }
}

#[test]
fn a_client_that_asks_for_json_gets_it() {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let response = exchange(&responder(PATIENT), request);
    assert!(response.contains("Content-Type: application/json"));
    assert!(response.contains("\"cipher\": \"TLS_AES_128_GCM_SHA256\""), "{response}");
}

#[test]
fn a_header_and_a_request_that_arrive_byte_by_byte_are_understood() {
    let responder = responder(PATIENT);
    let mut stream = connect(&responder, b"");
    for byte in [&full_header()[..], b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"].concat() {
        stream.write_all(&[byte]).expect("sent");
    }
    assert_eq!(status(&read_all(stream)), "200");
}

#[test]
fn requests_one_after_the_other_are_counted_on_their_connection() {
    let response = exchange(&responder(PATIENT), &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3));
    assert_eq!(response.matches("HTTP/1.1 200 OK").count(), 3);
    assert!(response.contains("on this connection 3\n"), "{response}");
}

#[test]
fn a_body_is_read_away_before_the_next_request() {
    let mut requests = b"POST /upload HTTP/1.1\r\nContent-Length: 100000\r\n\r\n".to_vec();
    requests.resize(requests.len() + 100_000, b'G');
    requests.extend_from_slice(b"GET /after HTTP/1.1\r\n\r\n");
    let response = exchange(&responder(PATIENT), &requests);
    assert!(response.contains("100000 bytes") && response.contains("GET /after"), "{response}");
}

#[test]
fn a_client_that_waits_for_permission_to_send_gets_it() {
    let responder = responder(PATIENT);
    let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\
                    Connection: close\r\n\r\n";
    let mut stream = connect(&responder, &[&full_header(), &request[..]].concat());
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").expect("sent");
    assert_eq!(status(&read_all(stream)), "200");
}

#[test]
fn head_gets_the_length_and_no_body() {
    let response = exchange(&responder(PATIENT), b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status(&response), "200");
    assert!(response.contains("Content-Length: ") && response.ends_with("\r\n\r\n"));
}

#[test]
fn http_1_0_and_connection_close_end_the_connection() {
    let responder = responder(PATIENT);
    for request in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"]
    {
        // The sending side stays open: it is the server that ends.
        let stream = connect(&responder, &[&full_header(), request].concat());
        assert!(read_all(stream).contains("Connection: close\r\n"));
    }
}

#[test]
fn garbage_after_the_header_is_400() {
    let responder = responder(PATIENT);
    for garbage in
        [&b"\x16\x03\x01 TLS\r\n\r\n"[..], b"GET / HTTP/7\r\n\r\n", b"GET / HTTP/1.1\r\n"]
    {
        assert_eq!(status(&exchange(&responder, garbage)), "400", "{garbage:?}");
    }
}

#[test]
fn ambiguous_and_unlimited_bodies_are_refused() {
    let responder = responder(PATIENT);
    for (headers, expected) in [
        ("Content-Length: 1\r\nContent-Length: 2", "400"),
        ("Content-Length: +1", "400"),
        ("Content-Length: 99999999999999999999", "400"),
        ("Content-Length: 9999999999", "413"),
        ("Transfer-Encoding: chunked", "411"),
    ] {
        let request = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
        assert_eq!(status(&exchange(&responder, request.as_bytes())), expected, "{headers}");
    }
}

#[test]
fn an_oversized_head_is_431() {
    let responder = responder(PATIENT);
    let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
    request.resize(64 * 1_024, b'x');
    assert_eq!(status(&exchange(&responder, &request)), "431");
    let many = [&b"GET / HTTP/1.1\r\n"[..], &b"A: b\r\n".repeat(101), b"\r\n"].concat();
    assert_eq!(status(&exchange(&responder, &many)), "431");
}

#[test]
fn a_connection_without_a_proxy_header_is_closed_without_an_answer() {
    let responder = responder(PATIENT);
    let mut truncated = full_header();
    truncated.truncate(30);
    let mut wrong = full_header();
    wrong[12] = 0x11;
    for bytes in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), truncated, wrong, Vec::new()] {
        let mut stream = connect(&responder, &bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        // Bytes left unread make it a reset.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bytes:?}");
    }
    assert_eq!(status(&exchange(&responder, b"GET / HTTP/1.1\r\n\r\n")), "200", "others go on");
}

#[test]
fn a_silent_client_is_closed_at_the_timeout() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..PATIENT };
    let responder = responder(limits);
    for bytes in [Vec::new(), full_header(), [&full_header()[..], b"GET /"].concat()] {
        assert_eq!(read_all(connect(&responder, &bytes)), "");
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let responder = responder(Limits { connections_max: 2, ..PATIENT });
    let request = [&full_header()[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(&responder, &request);
            // Answered: it has its place.
            stream.read_exact(&mut [0; 12]).expect("an answer");
            stream
        })
        .collect();
    let mut waiting = connect(&responder, &request);
    waiting.set_nonblocking(true).expect("non-blocking");
    let early = waiting.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(early, Err(io::ErrorKind::WouldBlock));
    waiting.set_nonblocking(false).expect("blocking");
    drop(held);
    waiting.read_exact(&mut [0; 12]).expect("answered when a place was free");
}

#[test]
fn only_this_user_reaches_the_socket_and_nothing_is_left_behind() {
    let responder = responder(PATIENT);
    let directory = responder.directory.clone();
    let mode = fs::metadata(&directory).expect("a directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let _idle = connect(&responder, &full_header());
    drop(responder);
    assert!(!directory.exists());
}
