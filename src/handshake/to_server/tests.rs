use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig, ServerConnection};

use super::super::step::step;
use super::super::test_support::{
    HOST, LIBRARIES, Offer, VERSIONS, client_config, server_config_raw,
};
use super::*;
use crate::tls::record::Opened;
use crate::tls::secrets::CaptureSecrets;

/// A server of rustls, and the task that is its client.
struct Pair {
    task: Box<Task>,
    server: ServerConnection,
    library: CryptoLibrary,
}

fn config(offer: &Offer) -> Arc<ClientConfig> {
    let mut config = client_config(offer);
    config.key_log = Arc::new(CaptureSecrets);
    config.enable_secret_extraction = true;
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

fn server(library: CryptoLibrary, offer: &Offer) -> Arc<ServerConfig> {
    Arc::new(server_config_raw(library, offer))
}

impl Pair {
    fn new(
        library: CryptoLibrary,
        config: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &'static str,
        protocol: Option<&[u8]>,
    ) -> Self {
        let mut task = Box::new(Task::new(0, 0));
        let name = ServerName::try_from(name).unwrap();
        let to_server = ToServer::new(Arc::clone(config), name, protocol.map(Box::from));
        task.to_server = Some(Box::new(to_server));
        let server = ServerConnection::new(Arc::clone(server)).unwrap();
        Self { task, server, library }
    }

    /// What the server has to send now.
    fn server_flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut flight).unwrap();
        }
        flight
    }

    /// Gives the server what we have to send; what it says to that.
    fn answer(&mut self) -> Result<(), rustls::Error> {
        let flight = std::mem::take(&mut self.task.output);
        let mut rest = flight.as_slice();
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).unwrap();
            self.server.process_new_packets()?;
        }
        Ok(())
    }

    /// Goes on until the handshake is decided on our side.
    fn run(&mut self) {
        loop {
            step(&mut self.task, self.library);
            let answered = self.answer();
            if !matches!(self.task.outcome, StepOutcome::NeedsInput) {
                return;
            }
            answered.unwrap();
            let flight = self.server_flight();
            assert!(!flight.is_empty(), "both sides wait for the other");
            self.task.input.extend_from_slice(&flight);
        }
    }

    fn established(&mut self) -> Box<Established> {
        match std::mem::take(&mut self.task.outcome) {
            StepOutcome::Established(established) => established,
            other => panic!("established was expected, not {other:?}"),
        }
    }

    fn failure(&mut self) -> ServerFailure {
        match std::mem::take(&mut self.task.outcome) {
            StepOutcome::ServerFailed(failure) => failure,
            other => panic!("a failure was expected, not {other:?}"),
        }
    }

    /// Opens what the server sent behind the handshake, and puts its ticket away.
    fn take_ticket(&mut self, established: &mut Established) {
        let mut wire = std::mem::take(&mut self.task.input);
        wire.extend(self.server_flight());
        let Opened::SessionTicket { body, .. } = established.opener.open(&mut wire).unwrap() else {
            panic!("a ticket was expected")
        };
        assert!(self.task.to_server.as_ref().unwrap().awaits_ticket());
        self.task.input = wire[body].to_vec();
        step(&mut self.task, self.library);
        assert!(matches!(self.task.outcome, StepOutcome::TicketKept));
    }
}

/// Bytes go both ways through the record layer that the handshake ended in.
fn exchange(server: &mut ServerConnection, established: &mut Established) {
    use std::io::{Read as _, Write as _};
    let front = established.sealer.header_bytes();
    let mut buffer = vec![0; front];
    buffer.extend_from_slice(b"a question");
    let end = buffer.len();
    buffer.resize(end + established.sealer.trailer_bytes(), 0);
    let sealed = established.sealer.seal_run(&mut buffer, front..end, 16_384).unwrap();
    server.read_tls(&mut &buffer[sealed]).unwrap();
    server.process_new_packets().unwrap();
    let mut question = [0; 10];
    server.reader().read_exact(&mut question).unwrap();
    assert_eq!(&question, b"a question");

    server.writer().write_all(b"an answer").unwrap();
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_mut_slice();
    loop {
        match established.opener.open(rest).unwrap() {
            Opened::Data { plaintext, .. } => return assert_eq!(&rest[plaintext], b"an answer"),
            Opened::SessionTicket { record_bytes, .. } => rest = &mut rest[record_bytes..],
            other => panic!("data was expected, not {other:?}"),
        }
    }
}

#[test]
fn a_handshake_ends_in_a_record_layer_that_the_server_understands() {
    for library in LIBRARIES {
        for version in VERSIONS {
            let offer = Offer::version(version);
            let mut pair =
                Pair::new(library, &config(&offer), &server(library, &offer), HOST, None);
            pair.run();
            let mut established = pair.established();
            assert_eq!(established.facts.version, version);
            exchange(&mut pair.server, &mut established);
        }
    }
}

#[test]
fn a_session_is_resumed_in_either_version() {
    for version in VERSIONS {
        let offer = Offer::version(version);
        let (config, server) = (config(&offer), server(CryptoLibrary::AwsLc, &offer));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut pair = Pair::new(CryptoLibrary::AwsLc, &config, &server, HOST, None);
            pair.run();
            let mut established = pair.established();
            assert_eq!(established.facts.resumed, kind == HandshakeKind::Resumed);
            assert_eq!(pair.server.handshake_kind(), Some(kind));
            if version == Version::Tls13 {
                pair.take_ticket(&mut established);
            }
        }
    }
}

#[test]
fn what_the_server_sends_behind_its_finished_is_left_to_the_record_layer() {
    use std::io::Write as _;
    let offer = Offer::version(Version::Tls13);
    let library = CryptoLibrary::AwsLc;
    let mut config = server_config_raw(library, &offer);
    config.send_half_rtt_data = true;
    config.send_tls13_tickets = 0;
    let mut pair = Pair::new(library, &self::config(&offer), &Arc::new(config), HOST, None);
    step(&mut pair.task, library);
    pair.answer().unwrap();
    pair.server.writer().write_all(b"early").unwrap();
    let flight = pair.server_flight();
    pair.task.input.extend_from_slice(&flight);
    pair.run();
    let mut established = pair.established();
    let mut rest = std::mem::take(&mut pair.task.input);
    match established.opener.open(&mut rest).unwrap() {
        Opened::Data { plaintext, .. } => assert_eq!(&rest[plaintext], b"early"),
        other => panic!("data was expected, not {other:?}"),
    }
}

#[test]
fn flights_that_come_byte_by_byte_are_enough() {
    for version in VERSIONS {
        let offer = Offer::version(version);
        let library = CryptoLibrary::AwsLc;
        let mut pair = Pair::new(library, &config(&offer), &server(library, &offer), HOST, None);
        step(&mut pair.task, library);
        'flights: loop {
            pair.answer().unwrap();
            for byte in pair.server_flight() {
                pair.task.input.push(byte);
                if pair.task.holds_a_new_record() {
                    step(&mut pair.task, library);
                }
                if !matches!(pair.task.outcome, StepOutcome::NeedsInput) {
                    break 'flights;
                }
            }
        }
        pair.established();
    }
}

#[test]
fn a_server_with_another_name_is_refused_and_told() {
    let offer = Offer::default();
    let library = CryptoLibrary::AwsLc;
    let (config, server) = (config(&offer), server(library, &offer));
    let mut pair = Pair::new(library, &config, &server, "other.test", None);
    loop {
        step(&mut pair.task, library);
        if !matches!(pair.task.outcome, StepOutcome::NeedsInput) {
            break;
        }
        pair.answer().unwrap();
        let flight = pair.server_flight();
        pair.task.input.extend_from_slice(&flight);
    }
    assert_eq!(pair.failure().reason, ServerFailureReason::WrongName);
    assert!(matches!(pair.answer(), Err(rustls::Error::AlertReceived(_))));
}

#[test]
fn a_server_must_choose_the_protocol_of_the_client_and_no_other() {
    let library = CryptoLibrary::AwsLc;
    for (protocol, servers, fits) in [
        (Some(&b"h2"[..]), vec![&b"http/1.1"[..], b"h2"], true),
        (Some(b"h2"), vec![], false),
        (Some(b"h2"), vec![b"http/1.1"], false),
        (None, vec![b"h2"], true),
    ] {
        let offer = Offer { alpn: servers, ..Offer::default() };
        let server = server(library, &offer);
        let mut pair = Pair::new(library, &config(&Offer::default()), &server, HOST, protocol);
        pair.task.outcome = StepOutcome::NeedsInput;
        let mut told = Ok(());
        while matches!(pair.task.outcome, StepOutcome::NeedsInput) {
            step(&mut pair.task, library);
            told = pair.answer();
            let flight = pair.server_flight();
            pair.task.input.extend_from_slice(&flight);
        }
        if fits {
            assert_eq!(pair.established().facts.alpn.as_deref(), protocol);
            assert_eq!(told, Ok(()));
        } else {
            assert_eq!(pair.failure().reason, ServerFailureReason::NoSharedProtocol);
            // It has refused us, or is told by an alert that we refuse it.
            let alert = AlertDescription::NoApplicationProtocol;
            let refuses = Err(rustls::Error::NoApplicationProtocol);
            assert!(
                told == refuses || told == Err(rustls::Error::AlertReceived(alert)),
                "{told:?}"
            );
        }
    }
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let library = CryptoLibrary::AwsLc;
    let offer = Offer::default();
    let mut pair = Pair::new(library, &config(&offer), &server(library, &offer), HOST, None);
    step(&mut pair.task, library);
    pair.task.input.extend_from_slice(b"220 mail.test ESMTP\r\n");
    step(&mut pair.task, library);
    assert_eq!(pair.failure().reason, ServerFailureReason::NotTls);
}
