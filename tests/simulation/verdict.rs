//! What must hold after a run, whatever happened in it.

use std::fmt::Write as _;

use forebay::driver::simulator::{ConnectionId, Fault, World};
use forebay::engine::metrics::{EndReason, EngineMetrics};
use forebay::handshake::FailureReason;

use crate::conversation::{ClientEnd, Conversation, Ending, Offer, Registry, Shared};
use crate::setting::Setting;

/// Checks every conversation and what the engine has counted; returns how many
/// conversations are complete.
///
/// # Panics
/// Something that must hold does not.
pub(crate) fn check(
    conversations: &[Shared],
    registry: &Registry,
    setting: &Setting,
    metrics: &EngineMetrics,
    world: &World,
) -> usize {
    check_metrics(metrics);
    assert!(
        setting.may_have_no_server() || count(metrics, &[EndReason::NoBackend]) == 0,
        "clients were given up for want of a server while one was well:{}",
        ended(metrics)
    );
    // Backends that a fault cut off before they had read whose connection it was.
    let cut_off = |id: &&ConnectionId| world.faults_of(**id).iter().any(Fault::is_cut);
    let anonymous = registry.anonymous().iter().filter(cut_off).count();

    let (mut complete, mut disturbed) = (0, anonymous);
    let (mut cut_short, mut falsely_ended) = (Vec::new(), Vec::new());
    for conversation in conversations {
        let conversation = conversation.borrow();
        check_ends(&conversation, setting, world);
        let number = conversation.plan.number;
        if conversation.client.ending == Some(Ending::Clean)
            && (conversation.client.heard_bytes < conversation.backend.said_bytes
                || !conversation.backend_ended(world))
        {
            falsely_ended.push(number);
        }
        let rude = setting.strict_truncation && conversation.plan.client_end == ClientEnd::FinOnly;
        if conversation.is_complete() {
            complete += 1;
        } else if conversation.is_disturbed(world) || !conversation.plan.is_well_behaved() || rude {
            disturbed += 1;
        } else {
            cut_short.push(number);
        }
    }

    // A client takes close_notify for the backend's end, so it must be that.
    assert!(
        falsely_ended.len() <= anonymous,
        "the streams of {falsely_ended:?} are not complete but look so to the clients:{}\n\
         {conversations:#?}",
        ended(metrics)
    );

    // Who suffered no fault is served to the end, except for reasons of the engine's own.
    let excuses = excuses(setting, metrics, conversations.len()) + anonymous;
    assert!(
        cut_short.len() <= excuses,
        "conversations {cut_short:?} suffered no fault and are not complete; the engine had \
         {excuses} reasons of its own:{}\n{conversations:#?}",
        ended(metrics)
    );

    // A timeout is for peers that do not go on, never for what the engine forgot to do.
    if setting.is_roomy() {
        let timeouts = [
            EndReason::HandshakeFailed,
            EndReason::IdleTimeout,
            EndReason::HalfClosedTimeout,
            EndReason::Stopped,
        ];
        let ended_by_us = count(metrics, &timeouts[..if setting.is_patient() { 4 } else { 3 }]);
        assert!(
            ended_by_us <= disturbed + silent(metrics),
            "{disturbed} conversations were disturbed, but:{}\n{conversations:#?}",
            ended(metrics)
        );
    }
    complete
}

impl Conversation {
    fn suffered<'w>(&self, world: &'w World) -> impl Iterator<Item = Fault> + use<'w> {
        [self.client_connection, self.backend_connection]
            .into_iter()
            .flatten()
            .flat_map(|id| world.faults_of(id).iter().copied())
    }

    /// Whether something befell it that no engine can make good.
    fn is_disturbed(&self, world: &World) -> bool {
        self.suffered(world).any(|fault| fault.is_cut())
    }

    /// Whether the backend ended its stream in order, or seemed to.
    fn backend_ended(&self, world: &World) -> bool {
        // With TLS, an end that is not the backend's own does not look like one.
        let early = |id| !self.over_tls && world.faults_of(id).contains(&Fault::EarlyEnd);
        self.backend.ended || self.backend_connection.is_some_and(early)
    }

    /// Whether both ends heard everything and its end.
    fn is_complete(&self) -> bool {
        self.client.heard_bytes == self.plan.down_bytes
            && self.backend.heard_bytes == self.plan.up_bytes
            && self.client.ending == Some(Ending::Clean)
            && match &self.backend.ending {
                Some(Ending::Clean) => true,
                // What the client said.
                Some(Ending::Truncated) => self.plan.client_end == ClientEnd::FinOnly,
                _ => false,
            }
    }
}

/// What holds for a conversation by itself.
fn check_ends(conversation: &Conversation, setting: &Setting, world: &World) {
    let Conversation { plan, client, backend, .. } = conversation;
    let number = plan.number;
    let client_fault = |fault: Fault| {
        conversation.client_connection.is_some_and(|id| world.faults_of(id).contains(&fault))
    };

    // Order and content are checked as bytes are heard; here, that none was made up.
    assert!(backend.heard_bytes <= client.said_bytes, "conversation {number}: bytes from nowhere");
    assert!(client.heard_bytes <= backend.said_bytes, "conversation {number}: bytes from nowhere");

    // A backend takes the end of the stream for the client's, so it must be that.
    if backend.ending == Some(Ending::Clean) {
        let announced = client.ended && plan.client_end != ClientEnd::FinOnly;
        // Without strict truncation, so is a bare FIN between two records.
        let left = client.ended && plan.client_end == ClientEnd::FinOnly
            || matches!(client.ending, Some(Ending::Broken(_) | Ending::Truncated));
        let tolerated = !setting.strict_truncation
            && !client.mid_record
            && (left || client_fault(Fault::EarlyEnd));
        assert!(
            announced || tolerated && !conversation.over_tls,
            "conversation {number}: the client did not end its stream, but the backend was told \
             so: {conversation:#?}"
        );
        assert!(
            !client.ended || backend.heard_bytes == client.said_bytes,
            "conversation {number}: the backend's stream is short but looks complete: \
             {conversation:#?}"
        );
        assert!(
            !client.damaged,
            "conversation {number}: a damaged stream looks complete: {conversation:#?}"
        );
    }

    // No client is left hanging.
    assert!(
        client.ending.is_some()
            || client_fault(Fault::StallForEver)
            || client_fault(Fault::AcceptAborted),
        "conversation {number}: the client never saw an end: {conversation:#?}"
    );
    if let Offer::Garbage(_) = plan.offer {
        assert!(!backend.established, "conversation {number}: garbage reached a backend");
    }
}

fn check_metrics(metrics: &EngineMetrics) {
    let ended: u64 = metrics.ended.iter().map(|counter| counter.value()).sum();
    let text = self::ended(metrics);
    assert_eq!(metrics.accepted.value(), ended, "every connection ends once:{text}");
    assert_eq!(count(metrics, &[EndReason::KeyLimit]), 0, "no key is used that much:{text}");
    for (name, gauge) in [
        ("connections", &metrics.connections),
        ("sources", &metrics.sources),
        ("established", &metrics.established),
        ("handshakes_in_progress", &metrics.handshakes_in_progress),
        ("upstream_connections", &metrics.upstream_connections),
        ("server_queue", &metrics.server_queue),
        ("buffers_in_use", &metrics.buffers_in_use),
    ] {
        assert_eq!(gauge.value(), 0, "the gauge {name} at rest");
    }
}

/// How many conversations the engine may have cut short without a fault of the world.
fn excuses(setting: &Setting, metrics: &EngineMetrics, conversations: usize) -> usize {
    let mut reasons = vec![EndReason::Shed, EndReason::Stopped, EndReason::BufferReclaimed];
    if setting.connects_fail() {
        reasons.push(EndReason::NoBackend);
    }
    if !setting.is_roomy() {
        reasons.extend([
            EndReason::HandshakeFailed,
            EndReason::NoBackend,
            EndReason::IdleTimeout,
            EndReason::HalfClosedTimeout,
        ]);
    }
    reasons.dedup();
    // Who came when the door was closed already, or was accepted while it closed.
    let taken = usize::try_from(metrics.accepted.value()).expect("few");
    count(metrics, &reasons) + silent(metrics) + conversations.saturating_sub(taken)
}

/// Who was silent in mid-handshake while others wanted the credit.
fn silent(metrics: &EngineMetrics) -> usize {
    let count = metrics.failures[FailureReason::Silent as usize].value();
    usize::try_from(count).expect("few")
}

fn count(metrics: &EngineMetrics, reasons: &[EndReason]) -> usize {
    let sum: u64 = reasons.iter().map(|reason| metrics.ended[*reason as usize].value()).sum();
    usize::try_from(sum).expect("few")
}

/// The ends that the engine has counted, to be read.
pub(crate) fn ended(metrics: &EngineMetrics) -> String {
    let mut text = String::new();
    for reason in EndReason::ALL {
        let count = metrics.ended[reason as usize].value();
        if count > 0 {
            let _ = write!(text, " {}={count}", reason.label());
        }
    }
    text
}
