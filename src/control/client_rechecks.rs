//! Established sessions of clients that would not come in any more.
//!
//! ```text
//!   gates ── who came in ─▶ known ── a reload with other verifiers ─▶ pending
//!                                                                       │ a part each turn
//!   engines: end those who are refused ◀── somebody was refused ◀───────┘
//! ```
//!
//! The verdict is that of [`Verifier::check`](crate::tls::client_auth::Verifier::check), as
//! for a client that comes anew: its chain, the lists, the rules. A signature costs some
//! 100 µs, so that a part is done each turn of the control thread; who waits stays meanwhile.
//!
//! A handshake that was under way during a reload is verified by the old verifier; who came
//! in by it is noticed at the next turn.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::engine::snapshot::Snapshot;
use crate::tls::client_auth::{AdmittedClients, Client, Gate};
use crate::tls::tickets::unix_seconds;

/// How long clients are checked in one turn.
const TURN: Duration = Duration::from_millis(50);

/// What came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rechecked {
    /// So many clients may not stay; engines are to look who.
    pub refused: usize,
    /// There are more to check.
    pub pending: bool,
}

/// Checks who is here already against the verifiers in force.
#[derive(Debug)]
pub struct ClientRechecks {
    admitted: Arc<AdmittedClients>,
    in_force: Arc<Snapshot>,
    known: Vec<Known>,
    /// How many of them were here at the last look for those who have left.
    living_at_last_look: usize,
    pending: VecDeque<Known>,
}

#[derive(Debug)]
struct Known {
    client: Weak<Client>,
    /// The verifier that has said yes.
    checked_by: [u8; 32],
}

impl ClientRechecks {
    /// Looks after those who go on the list `admitted`.
    pub fn new(admitted: Arc<AdmittedClients>, in_force: Arc<Snapshot>) -> Self {
        let (known, pending) = (Vec::new(), VecDeque::new());
        Self { admitted, in_force, known, living_at_last_look: 0, pending }
    }

    /// To be called every turn, with what was put in force since the last one.
    pub fn look_after(&mut self, reloaded: Option<&Arc<Snapshot>>) -> Rechecked {
        if let Some(snapshot) = reloaded {
            self.in_force = Arc::clone(snapshot);
            // Those who wait for a check get it from the verifier of now.
            self.known.extend(self.pending.drain(..));
            self.sort(|_| true);
        }
        let arrived = self.admitted.take();
        if !arrived.is_empty() {
            let known = self.known.len();
            self.known.extend(arrived.into_iter().filter_map(|client| {
                let checked_by = *client.upgrade()?.verified_by();
                Some(Known { client, checked_by })
            }));
            self.sort(|place| place >= known);
        }
        self.forget_who_left();
        self.check()
    }

    /// Those among `which` of the known whom another verifier than that in force has let in
    /// become pending.
    fn sort(&mut self, which: impl Fn(usize) -> bool) {
        let mut place = 0;
        let outdated = self.known.extract_if(.., |known| {
            place += 1;
            which(place - 1)
                && known.client.upgrade().is_some_and(|client| {
                    gate(&self.in_force, &client)
                        .is_some_and(|gate| *gate.verifier().id() != known.checked_by)
                })
        });
        self.pending.extend(outdated);
    }

    fn forget_who_left(&mut self) {
        let limit = AdmittedClients::LENGTH_KEPT.max(2 * self.living_at_last_look);
        if self.known.len() >= limit {
            self.known.retain(|known| known.client.strong_count() > 0);
            self.living_at_last_look = self.known.len();
        }
    }

    fn check(&mut self) -> Rechecked {
        let begin = Instant::now();
        let now = Duration::from_secs(unix_seconds());
        let mut refused = 0;
        while begin.elapsed() < TURN
            && let Some(mut known) = self.pending.pop_front()
        {
            let Some(client) = known.client.upgrade() else { continue };
            // Where nobody is asked for a certificate, everybody may stay.
            if let Some(gate) = gate(&self.in_force, &client) {
                let verifier = gate.verifier();
                if let Err(error) = verifier.check(client.chain(), now) {
                    tracing::debug!(
                        common_name = client.common_name(),
                        %error,
                        "a client with an established session is refused from now on"
                    );
                    client.refuse();
                    refused += 1;
                    continue;
                }
                known.checked_by = *verifier.id();
            }
            self.known.push(known);
        }
        Rechecked { refused, pending: !self.pending.is_empty() }
    }
}

/// Who decides now on a client that came in there.
fn gate<'s>(snapshot: &'s Snapshot, client: &Client) -> Option<&'s Arc<Gate>> {
    let entrance = client.entrance();
    let listener = snapshot.listeners.get(usize::from(entrance.listener))?;
    listener.policy.gate(entrance.server_name.as_deref())
}
