//! What became of the tickets that clients offered, told by the ring to the worker whose
//! thread it was called on.
//!
//! rustls calls the ring inside of a handshake step, and says nothing of a ticket that it
//! does not take for reasons of its own; so the step says afterwards whether the session
//! was resumed, and the worker takes the outcome.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// Why a ticket did not lead to a resumed session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No secret of ours made it.
    UnknownSecret,
    /// Ours, of an epoch that does not open now.
    UnknownEpoch,
    /// Ours, of another security domain.
    OtherDomain,
    /// It opened, but is older than tickets live.
    Expired,
    /// It has the name of one of our keys, and was not made with it.
    BadSeal,
    /// Too short or too long to be ours.
    Malformed,
    /// It opened, and the session does not fit this handshake: another server name or
    /// cipher suite, or a better ticket was taken.
    Policy,
}

impl Refused {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::UnknownSecret,
        Self::UnknownEpoch,
        Self::OtherDomain,
        Self::Expired,
        Self::BadSeal,
        Self::Malformed,
        Self::Policy,
    ];

    /// The label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownSecret => "unknown_secret",
            Self::UnknownEpoch => "unknown_epoch",
            Self::OtherDomain => "other_domain",
            Self::Expired => "expired",
            Self::BadSeal => "bad_seal",
            Self::Malformed => "malformed",
            Self::Policy => "policy",
        }
    }
}

/// Tickets that were offered in a step, and not yet counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TicketUses {
    /// Tickets that opened.
    pub opened: u32,
    /// Of those: issued in what is the future here.
    pub ahead: u32,
    /// Tickets refused, by [`Refused`] index.
    pub refused: [u32; Refused::ALL.len()],
}

impl TicketUses {
    /// Every ticket offered.
    pub fn offered(&self) -> u32 {
        self.opened + self.refused.iter().sum::<u32>()
    }
}

thread_local! {
    static USES: Cell<TicketUses> = const { Cell::new(TicketUses {
        opened: 0,
        ahead: 0,
        refused: [0; Refused::ALL.len()],
    }) };
}

/// What was told on this thread since the last call. Nothing stays behind.
pub fn take() -> TicketUses {
    USES.take()
}

/// The step that has run resumed a session with one of the tickets that opened, or with
/// none of them.
pub fn resumed(resumed: bool) {
    change(|uses| {
        let taken = u32::from(resumed).min(uses.opened);
        uses.refused[Refused::Policy as usize] += uses.opened - taken;
        uses.opened = taken;
    });
}

pub(super) fn opened(ahead: bool) {
    change(|uses| {
        uses.opened += 1;
        uses.ahead += u32::from(ahead);
    });
}

pub(super) fn refused(cause: Refused) {
    change(|uses| uses.refused[cause as usize] += 1);
}

fn change(with: impl FnOnce(&mut TicketUses)) {
    let mut uses = USES.get();
    with(&mut uses);
    USES.set(uses);
}
