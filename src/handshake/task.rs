//! The credit that admits one handshake, and what comes of its steps.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::UnbufferedServerConnection;
use zeroize::Zeroize as _;

use super::{CostClass, HandshakeFailure, ServerFailure, ShedReason, ToServer};
use crate::clock::Moment;
use crate::tls::Version;
use crate::tls::certificates::CertificateKind;
use crate::tls::client_auth::{Client, Gate, OpenChoice};
use crate::tls::client_hello::Ja4;
use crate::tls::policy::candidate::Verdict;
use crate::tls::record::{HEADER_BYTES, Opener, RECORD_BYTES_MAX, Sealer};
use crate::tls::secrets::TrafficSecrets;
use crate::tls::server_name::ServerName;

/// A credit: one admitted handshake and the buffers it works in, made once at start
/// and used again for handshake after handshake.
pub struct Task {
    /// Which engine's inbox the result goes to; the service sets it.
    pub engine: usize,
    /// Place of this credit in its engine's liveness table.
    pub credit: u32,
    /// The engine's connection slot.
    pub slot: u32,
    /// The slot's generation; also what the liveness table must still hold.
    pub generation: u32,
    /// When the step was submitted; workers set the queue wait from it.
    pub submitted: Moment,
    /// Past this moment the step is not worth doing.
    pub deadline: Moment,
    /// What the next step will cost. The engine sets it from the ClientHello; a step
    /// that has answered it makes the rest of the handshake a
    /// [`CostClass::Continuation`].
    pub class: CostClass,
    /// The configuration to begin with; taken by the first step.
    pub config: Option<Arc<rustls::ServerConfig>>,
    /// The handshake is one with a server behind, in which we are the client. It takes the
    /// place of `config`, `server_name` and `state`.
    pub to_server: Option<Box<ToServer>>,
    /// The name that the engine read from the ClientHello. The last step copies it into
    /// [`SessionFacts::server_name`]: rustls knows it too, but does not tell it on an
    /// unbuffered connection.
    pub server_name: Option<ServerName>,
    /// The certificate that the engine counts on. The last step copies it into
    /// [`SessionFacts::certificate`].
    pub certificate: Option<CertificateKind>,
    /// Somebody wants to know the client's fingerprint: the first step makes it.
    pub wants_fingerprint: bool,
    /// The fingerprint, if it is wanted and there is one.
    pub fingerprint: Option<Ja4>,
    /// Where the client came in, by the place of the listening socket.
    pub listener: u16,
    /// Who decides on the client's certificate, if it is asked for one.
    pub gate: Option<Arc<Gate>>,
    /// What the client's certificate is to decide.
    pub choice: Option<OpenChoice>,
    /// The address that the client has connected to, where that may decide what it is
    /// shown.
    pub destination: Option<IpAddr>,
    /// What would become of the client under a policy that is only tried.
    pub verdict: Option<Verdict>,
    /// The handshake between its steps; `None` before the first and after the last.
    pub state: Option<Box<UnbufferedServerConnection>>,
    /// Bytes from the client that no step has consumed yet, at most
    /// [`Self::INPUT_BYTES_MAX`]. The engine appends; it never removes or changes what
    /// a step has left, since rustls keeps places in it.
    pub input: Vec<u8>,
    /// The flight that the step produced, to be sent to the client. The engine clears
    /// it when it is sent; a step appends.
    pub output: Vec<u8>,
    /// What came of the step.
    pub outcome: StepOutcome,
    /// Time the step spent queued, set by the worker.
    pub queue_wait: Duration,
    /// Time the step spent working, set by the worker.
    pub work: Duration,
    /// Bytes of `input` that earlier steps have fed to rustls and that it still needs:
    /// the front of a handshake message whose end has not arrived.
    pub(super) fed_bytes: usize,
    /// TLS 1.3 traffic secrets. They exist from the server's first flight on, the keys
    /// are converted only after the client's, so they wait here in between.
    pub(super) secrets: Option<TrafficSecrets>,
    /// What a step has signed with; under TLS 1.2 it is not the last one.
    pub(super) signature_scheme: Option<u16>,
}

impl Task {
    /// The most bytes that `input` may hold: one largest record.
    ///
    /// Every record that an honest client can send fits, and so does a ClientHello ten
    /// times the usual size. What is left after the handshake fits one pool buffer of
    /// the engine, which is made for the same record. A handshake message that needs
    /// more fails its step.
    pub const INPUT_BYTES_MAX: usize = RECORD_BYTES_MAX;

    /// The most bytes that one step may add to `output`. A flight is a few KiB with
    /// usual certificate chains; OpenSSL clients refuse chains above 100 KiB, so what
    /// this bound refuses nobody could have used.
    pub const OUTPUT_BYTES_MAX: usize = 128 * 1024;

    /// Capacity that `input` keeps between handshakes: two usual ClientHellos.
    const INPUT_BYTES_KEPT: usize = 4 * 1024;

    /// Capacity that `output` keeps between handshakes: a usual server flight.
    const OUTPUT_BYTES_KEPT: usize = 8 * 1024;

    /// Bytes that a credit takes at rest.
    pub const MEMORY_BYTES: usize =
        size_of::<Self>() + Self::INPUT_BYTES_KEPT + Self::OUTPUT_BYTES_KEPT;

    /// Makes the credit number `credit` of the engine number `engine`.
    pub fn new(engine: usize, credit: u32) -> Self {
        Self {
            engine,
            credit,
            slot: 0,
            generation: 0,
            submitted: Moment::default(),
            deadline: Moment::default(),
            class: CostClass::EllipticCurve,
            config: None,
            to_server: None,
            server_name: None,
            certificate: None,
            wants_fingerprint: false,
            fingerprint: None,
            listener: 0,
            gate: None,
            choice: None,
            destination: None,
            verdict: None,
            state: None,
            input: touched(Self::INPUT_BYTES_KEPT),
            output: touched(Self::OUTPUT_BYTES_KEPT),
            outcome: StepOutcome::Pending,
            queue_wait: Duration::ZERO,
            work: Duration::ZERO,
            fed_bytes: 0,
            secrets: None,
            signature_scheme: None,
        }
    }

    /// Makes the credit ready for the next handshake: forgets everything of the last
    /// one but who it belongs to, wipes what may be secret, and gives back the memory
    /// of an unusually large handshake.
    pub fn reset(&mut self) {
        self.slot = 0;
        self.generation = 0;
        self.submitted = Moment::default();
        self.deadline = Moment::default();
        self.class = CostClass::EllipticCurve;
        self.config = None;
        self.to_server = None;
        self.server_name = None;
        self.certificate = None;
        self.wants_fingerprint = false;
        self.fingerprint = None;
        self.listener = 0;
        self.gate = None;
        self.choice = None;
        self.destination = None;
        self.verdict = None;
        self.state = None;
        self.outcome = StepOutcome::Pending;
        self.queue_wait = Duration::ZERO;
        self.work = Duration::ZERO;
        self.fed_bytes = 0;
        self.secrets = None;
        self.signature_scheme = None;
        // Records are opened in place in the input, so it may hold plaintext.
        self.input.zeroize();
        self.input.shrink_to(Self::INPUT_BYTES_KEPT);
        self.output.clear();
        self.output.shrink_to(Self::OUTPUT_BYTES_KEPT);
    }

    /// How many bytes the engine may still append to `input`.
    pub fn input_room_bytes(&self) -> usize {
        Self::INPUT_BYTES_MAX.saturating_sub(self.input.len())
    }

    /// Whether a whole record is there that no step has seen, or the header of one that is
    /// none: another step would get further.
    pub fn holds_a_new_record(&self) -> bool {
        let unseen = self.input.get(self.fed_bytes..).unwrap_or_default();
        let [content_type, major, _, high, low, ..] = *unseen else { return false };
        // ChangeCipherSpec, alert, handshake and data, of any version of TLS. Whoever says
        // something else may never send the body that its header seems to promise.
        let is_tls = matches!(content_type, 20..=23) && major == 3;
        let length = usize::from(u16::from_be_bytes([high, low]));
        !is_tls || unseen.len() >= HEADER_BYTES + length
    }
}

/// An empty buffer whose memory is really there, not only promised: a start takes what
/// it says it takes.
fn touched(capacity_bytes: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(capacity_bytes);
    // Not zero, which the allocator could give without touching it.
    buffer.resize(capacity_bytes, 1);
    buffer.clear();
    buffer
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Task")
            .field("engine", &self.engine)
            .field("credit", &self.credit)
            .field("slot", &self.slot)
            .field("generation", &self.generation)
            .field("class", &self.class)
            .field("input_bytes", &self.input.len())
            .field("output_bytes", &self.output.len())
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// What came of a step.
#[derive(Debug, Default)]
pub enum StepOutcome {
    /// Not run yet.
    #[default]
    Pending,
    /// Send `output`, then bring more bytes from the client.
    NeedsInput,
    /// Send `output`; the handshake is done. What is left in `input` are records for
    /// the opener.
    Established(Box<Established>),
    /// Send `output` (an alert, possibly empty), then close.
    Failed(HandshakeFailure),
    /// The handshake with a server failed: send `output` (an alert, possibly empty), then
    /// close.
    ServerFailed(ServerFailure),
    /// A session ticket of a server was put away; there is no connection to go on with.
    TicketKept,
    /// Not run: close without spending anything on it.
    Shed(ShedReason),
}

/// Everything the engine needs of a finished handshake. Plain data: no rustls inside.
#[derive(Debug)]
pub struct Established {
    /// Opens records from the client.
    pub opener: Opener,
    /// Seals records to the client.
    pub sealer: Sealer,
    /// What was negotiated.
    pub facts: SessionFacts,
    /// The client, if it has shown a certificate, now or when the session began.
    pub client: Option<Arc<Client>>,
    /// What its certificate has decided.
    pub choice: Option<usize>,
    /// Its fingerprint, if somebody wants to know it and there is one.
    pub fingerprint: Option<Box<Ja4>>,
    /// From its first byte on the listening socket to here, in microseconds; the engine sets
    /// it.
    pub handshake_us: u32,
}

/// What was negotiated, for the PROXY header, metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Protocol version.
    pub version: Version,
    /// Cipher suite by its IANA code point.
    pub cipher_suite: u16,
    /// Key-exchange group by its IANA code point; `None` if none took place.
    pub group: Option<u16>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// What was signed with, by its IANA code point; `None` if nothing was.
    pub signature_scheme: Option<u16>,
    /// The certificate chosen for the client. One that resumed a session has seen it when
    /// that began.
    pub certificate: Option<CertificateKind>,
    /// The protocol chosen by ALPN (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The name the client asked for (RFC 6066 section 3), lower case.
    pub server_name: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_credit_keeps_its_place_and_nothing_else() {
        let mut task = Task::new(3, 17);
        task.slot = 5;
        task.generation = 9;
        task.class = CostClass::Rsa;
        task.server_name = ServerName::try_from("example.org").ok();
        task.input.resize(Task::INPUT_BYTES_MAX, 0xaa);
        task.output.resize(Task::OUTPUT_BYTES_MAX, 0xbb);
        task.outcome = StepOutcome::Shed(ShedReason::Expired);
        task.fed_bytes = 12;

        task.reset();

        assert_eq!((task.engine, task.credit), (3, 17));
        assert_eq!((task.slot, task.generation, task.fed_bytes), (0, 0, 0));
        assert!(task.input.is_empty() && task.output.is_empty());
        assert!(task.server_name.is_none());
        assert!(matches!(task.outcome, StepOutcome::Pending));
        assert!(task.input.capacity() <= Task::INPUT_BYTES_KEPT);
        assert!(task.output.capacity() <= Task::OUTPUT_BYTES_KEPT);
    }

    #[test]
    fn a_usual_handshake_keeps_its_buffers() {
        let mut task = Task::new(0, 0);
        task.input.resize(600, 1);
        task.output.resize(3_000, 1);
        task.reset();
        assert_eq!(task.input.capacity(), Task::INPUT_BYTES_KEPT);
        assert_eq!(task.output.capacity(), Task::OUTPUT_BYTES_KEPT);
    }

    #[test]
    fn the_room_for_input_ends_at_the_bound() {
        let mut task = Task::new(0, 0);
        assert_eq!(task.input_room_bytes(), Task::INPUT_BYTES_MAX);
        task.input.resize(Task::INPUT_BYTES_MAX, 0);
        assert_eq!(task.input_room_bytes(), 0);
    }
}
