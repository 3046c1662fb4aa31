//! Over real sockets, with clients that behave and clients that do not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::answer::Answer;
use super::*;
use crate::control::lifecycle::Stage;
use crate::control::metrics::control_cells::ControlCells;
use crate::control::metrics::{Certificates, Sizes, Sources};
use crate::control::reload_requests::ReloadOutcome;
use crate::endpoint::Endpoint;
use crate::engine::metrics::EngineMetrics;
use crate::handshake::metrics::WorkerMetrics;
use crate::upstream::{Backend, Pool};

struct Fixture {
    server: AdminServer,
    lifecycle: Arc<Lifecycle>,
    reload_requests: Arc<ReloadRequests>,
}

/// Timeouts far beyond any test, where a test does not set them.
const PATIENT: Limits = Limits {
    connections_max: 8,
    request_timeout: Duration::from_secs(600),
    response_timeout: Duration::from_secs(600),
    reload_timeout: Duration::from_secs(600),
};

fn pages(engines: usize) -> Pages {
    let lifecycle = Arc::new(Lifecycle::default());
    lifecycle.enter(Stage::Accepting);
    let metrics = Page::new(Sources {
        engines: (0..engines).map(|_| Arc::new(EngineMetrics::default())).collect(),
        workers: vec![Arc::new(WorkerMetrics::default())],
        control: Arc::new(ControlCells::default()),
        sizes: Sizes::default(),
        log_lines_dropped: None,
        certificates: Arc::new(Certificates::default()),
        pools: Arc::default(),
        names: Arc::default(),
        served: Arc::default(),
    });
    Pages {
        lifecycle,
        metrics,
        served: Arc::default(),
        pools: Arc::default(),
        reload_requests: Arc::default(),
    }
}

fn fixture(engines: usize, limits: Limits) -> Fixture {
    let pages = pages(engines);
    let (lifecycle, reload_requests) =
        (Arc::clone(&pages.lifecycle), Arc::clone(&pages.reload_requests));
    let listener = AdminListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let server = listener.serve(pages, limits).expect("a server");
    Fixture { server, lifecycle, reload_requests }
}

impl Fixture {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).expect("connected");
        // A server that hangs fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// Sends `request` and reads to the end of the stream.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).expect("sent");
        read_all(stream)
    }

    fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes())
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("the whole response");
    response
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or(response)
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn health_and_readiness_follow_the_lifecycle() {
    let fixture = fixture(1, PATIENT);
    for path in ["/health", "/ready"] {
        for (stage, expected_status, expected_body) in [
            (Stage::Starting, "503", "starting\n"),
            (Stage::Accepting, "200", "ok\n"),
            (Stage::Draining, "503", "draining\n"),
        ] {
            fixture.lifecycle.enter(stage);
            let response = fixture.get(path);
            assert_eq!((status(&response), body(&response)), (expected_status, expected_body));
        }
    }
}

#[test]
fn metrics_are_served_whole_in_the_format_asked_for() {
    let fixture = fixture(1, PATIENT);
    let response = fixture.get("/metrics");
    assert_eq!(status(&response), "200");
    assert!(response.contains("Content-Type: text/plain; version=0.0.4"), "{response}");
    assert!(response.contains(&format!("Content-Length: {}\r\n", body(&response).len())));
    let request = b"GET /metrics HTTP/1.1\r\n\
                    accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\r\n";
    let response = fixture.exchange(request);
    assert!(response.contains("Content-Type: application/openmetrics-text; version=1.0.0"));
    assert!(body(&response).ends_with("# EOF\n"));
}

#[test]
fn a_query_does_not_change_the_page() {
    assert_eq!(status(&fixture(1, PATIENT).get("/health?check=1")), "200");
}

#[test]
fn the_index_names_the_pages() {
    let response = fixture(1, PATIENT).get("/");
    for path in ["/metrics", "/health", "/ready", "/certificates", "/shadow", "/servers", "/reload"]
    {
        assert!(body(&response).contains(path));
    }
}

#[test]
fn an_unknown_path_is_404_and_another_method_405() {
    let fixture = fixture(1, PATIENT);
    assert_eq!(status(&fixture.get("/admin")), "404");
    let response = fixture.exchange(b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&response), "405");
    assert!(response.contains("Allow: GET, HEAD\r\n"));
}

/// Does what is asked at the door, as the control thread does.
fn reload_once(requests: &ReloadRequests, outcome: &ReloadOutcome) {
    while !requests.take() {
        std::thread::yield_now();
    }
    requests.answer(outcome.clone());
}

#[test]
fn who_asks_for_a_reload_is_answered_when_it_is_done() {
    let fixture = fixture(1, PATIENT);
    for (succeeded, expected) in [(true, "200"), (false, "422")] {
        let outcome =
            ReloadOutcome { succeeded, generation: 7, findings: vec!["found".to_owned()] };
        let answered = std::thread::scope(|scope| {
            scope.spawn(|| reload_once(&fixture.reload_requests, &outcome));
            fixture.exchange(b"POST /reload HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        });
        assert_eq!(status(&answered), expected);
        assert!(answered.contains("Content-Type: application/json\r\n"));
        assert_eq!(serde_json::from_str::<ReloadOutcome>(body(&answered)).unwrap(), outcome);
    }
}

#[test]
fn while_a_reload_is_waited_for_others_are_served_and_a_second_reload_is_refused() {
    let fixture = fixture(1, PATIENT);
    let mut waiting = fixture.connect();
    waiting.write_all(b"POST /reload HTTP/1.1\r\n\r\n").unwrap();
    while fixture.reload_requests.ask().is_some() {
        // Ours came first: undo it, and look again.
        reload_once(&fixture.reload_requests, &ReloadOutcome::default());
        std::thread::yield_now();
    }
    assert_eq!(status(&fixture.get("/health")), "200");
    let refused = fixture.exchange(b"POST /reload HTTP/1.1\r\n\r\n");
    assert_eq!(status(&refused), "409");
    reload_once(&fixture.reload_requests, &ReloadOutcome::default());
    assert_eq!(status(&read_all(waiting)), "422");
}

#[test]
fn who_asks_for_a_reload_and_leaves_costs_no_place() {
    let fixture = fixture(1, PATIENT);
    let mut waiting = fixture.connect();
    waiting.write_all(b"POST /reload HTTP/1.1\r\n\r\n").unwrap();
    drop(waiting);
    reload_once(&fixture.reload_requests, &ReloadOutcome::default());
    assert_eq!(status(&fixture.get("/health")), "200");
}

#[test]
fn a_reload_is_asked_for_by_post_and_from_this_machine() {
    let fixture = fixture(1, PATIENT);
    let response = fixture.get("/reload");
    assert_eq!(status(&response), "405");
    assert!(response.contains("Allow: POST\r\n"), "{response}");
    let mut answers = Answers::new(pages(1));
    let Answer::Now(response) = answers.answer("POST", "/reload", "", false) else {
        panic!("refused at once")
    };
    assert!(response.head.starts_with(b"HTTP/1.1 403 "));
    assert!(matches!(answers.answer("POST", "/reload", "", true), Answer::AfterReload(1)));
}

#[test]
fn what_the_operator_wants_of_a_server_is_taken_by_post_and_from_this_machine() {
    let pages = pages(1);
    let backend = Backend::new(Endpoint::Unix("/run/app 1.sock".into()), 1);
    pages.pools.replace(vec![Arc::new(Pool::new("a&b", vec![backend]))]);
    let mut answers = Answers::new(pages);
    let mut ask = |query: &str, local| {
        let target = format!("/servers?{query}");
        let Answer::Now(response) = answers.answer("POST", &target, "", local) else {
            panic!("answered at once")
        };
        let text = [response.head, response.body.to_vec()].concat();
        String::from_utf8(text).expect("text")
    };
    let good = "pool=a%26b&server=unix%3A%2Frun%2Fapp%201.sock&wish=drain";
    assert_eq!(status(&ask(good, false)), "403");
    let done = ask(good, true);
    assert_eq!(status(&done), "200");
    assert!(body(&done).contains("\"state\":\"drain\""), "{done}");
    for wrong in ["", "pool=a%26b&server=x", "pool=%zz&server=x&wish=drain", "wish=away"] {
        assert_eq!(status(&ask(wrong, true)), "400", "{wrong}");
    }
    assert_eq!(status(&ask("pool=web&server=x&wish=drain", true)), "404");
}

#[test]
fn certificates_are_served_as_pages_and_nonsense_is_refused() {
    let fixture = fixture(1, PATIENT);
    let response = fixture.get("/certificates?offset=0&limit=7");
    assert_eq!(status(&response), "200");
    let page: crate::control::served::ServedPage = serde_json::from_str(body(&response)).unwrap();
    assert_eq!((page.total, page.certificates.len()), (0, 0));
    for query in ["offset=x", "limit=-1", "limit="] {
        assert_eq!(status(&fixture.get(&format!("/certificates?{query}"))), "400");
    }
}

#[test]
fn head_gets_the_headers_of_get_and_no_body() {
    let fixture = fixture(1, PATIENT);
    let response = fixture.exchange(b"HEAD /health HTTP/1.0\r\n\r\n");
    assert_eq!((status(&response), body(&response)), ("200", ""));
    assert!(response.contains("Content-Length: 3\r\n"));
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_answered() {
    let fixture = fixture(1, PATIENT);
    let mut stream = fixture.connect();
    stream.set_nodelay(true).expect("no delay");
    for byte in b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(status(&read_all(stream)), "200");
}

#[test]
fn garbage_is_400() {
    let fixture = fixture(1, PATIENT);
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n"]
    {
        assert_eq!(status(&fixture.exchange(garbage)), "400", "{garbage:?}");
    }
}

#[test]
fn an_oversized_head_is_431_although_the_client_goes_on_sending() {
    let fixture = fixture(1, PATIENT);
    let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
    request.resize(100 * 1_024, b'x');
    assert_eq!(status(&fixture.exchange(&request)), "431");
}

#[test]
fn too_many_headers_are_431() {
    let fixture = fixture(1, PATIENT);
    let mut request = b"GET / HTTP/1.1\r\n".to_vec();
    for _ in 0..100 {
        request.extend_from_slice(b"A: b\r\n");
    }
    request.extend_from_slice(b"\r\n");
    assert_eq!(status(&fixture.exchange(&request)), "431");
}

#[test]
fn a_second_request_on_the_connection_is_not_answered() {
    let fixture = fixture(1, PATIENT);
    let request = b"GET /health HTTP/1.1\r\n\r\n".repeat(2);
    assert_eq!(fixture.exchange(&request).matches("HTTP/1.1").count(), 1);
}

#[test]
fn clients_that_never_ask_do_not_keep_the_next_one_waiting() {
    let fixture = fixture(1, PATIENT);
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..PATIENT.connections_max * 3 {
        let mut stream = fixture.connect();
        stream.write_all(b"GET /hea").expect("sent");
        silent.push(stream);
    }
    assert_eq!(status(&fixture.get("/health")), "200");
    // The table was full all the time, so the first one made room and reads an end.
    let mut byte = [0];
    assert!(matches!(silent[0].read(&mut byte), Ok(0) | Err(_)));
}

#[test]
fn a_client_that_never_ends_its_request_is_closed_at_the_timeout() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..PATIENT };
    let fixture = fixture(1, limits);
    let mut stream = fixture.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    assert_eq!(read_all(stream), "");
}

#[test]
fn a_client_that_does_not_read_does_not_keep_others_waiting() {
    // Enough engines for a page beyond what the socket buffers hold.
    let fixture = fixture(400, PATIENT);
    let mut deaf = fixture.connect();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("sent");
    for _ in 0..20 {
        assert_eq!(status(&fixture.get("/health")), "200");
    }
    let late = read_all(deaf);
    assert!(late.len() > 1_000_000 && late.ends_with('\n'), "{} bytes", late.len());
}

#[test]
fn a_client_that_does_not_read_is_closed_at_the_timeout() {
    let limits = Limits { response_timeout: Duration::from_millis(50), ..PATIENT };
    let fixture = fixture(2_000, limits);
    let mut deaf = fixture.connect();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("sent");
    // A write fails once the server has closed on us.
    let patience = Instant::now() + Duration::from_secs(60);
    while deaf.write_all(b"x").is_ok() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(deaf.write_all(b"x").is_err(), "the server gave up on us");
}

#[test]
fn a_client_that_closes_its_sending_side_is_answered_if_it_asked() {
    let fixture = fixture(1, PATIENT);
    let mut stream = fixture.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(status(&read_all(stream)), "200");
}

#[test]
fn dropping_the_server_ends_its_thread_and_frees_its_port() {
    let fixture = fixture(1, PATIENT);
    let address = fixture.server.address();
    let open = fixture.connect();
    drop(fixture);
    drop(open);
    AdminListener::bind(address).expect("the port is free again");
}

#[test]
fn a_taken_address_is_an_error_that_names_it_and_says_what_to_do() {
    let fixture = fixture(1, PATIENT);
    let error = AdminListener::bind(fixture.server.address()).expect_err("taken");
    let text = error.to_string();
    assert!(text.contains(&fixture.server.address().to_string()), "{text}");
    assert!(text.contains("another process has it"), "{text}");
}
