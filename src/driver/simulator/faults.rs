//! What may go wrong in a simulated run, and how often. Plain data.

use std::time::Duration;

use super::random::{Chance, Random};
use crate::driver::Errno;

/// The faults of one run.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A receive, or a read or write of a peer, moves fewer bytes than it could.
    pub short_transfer: Chance,
    /// Bytes that each direction of a connection holds between its ends: drawn for
    /// each connection, from the least to the most, by order of magnitude.
    pub socket_buffer_bytes: (usize, usize),
    /// A segment or a completion is late.
    pub delay: Chance,
    /// The most that it is late.
    pub delay_max: Duration,
    /// A receive fails with `ENOBUFS` although the pool has buffers.
    pub no_buffers: Chance,
    /// An accept fails with the connection left in the backlog.
    pub accept_failed: Chance,
    /// An accept fails because the client has gone.
    pub accept_aborted: Chance,
    /// [`local_address`](crate::driver::Driver::local_address) fails.
    pub no_local_address: Chance,
    /// [`connect`](crate::driver::Driver::connect) itself fails.
    pub connect_failed: Chance,
    /// A connect completes with an error whatever the backend would answer.
    pub connect_refused: Chance,
    /// A connect is never answered; it times out after minutes.
    pub connect_unanswered: Chance,
    /// A cancelled operation that could complete does.
    pub cancel_late: Chance,
    /// A cancellation misses its operation, which goes on as if nothing had been asked.
    pub cancel_missed: Chance,
    /// A turn returns early with nothing.
    pub spurious_wake: Chance,
    /// The clock jumps ahead during a turn.
    pub clock_jump: Chance,
    /// The most that the clock jumps.
    pub clock_jump_max: Duration,
    /// What happens to the far ends that connect.
    pub clients: PeerFaults,
    /// What happens to the far ends that are connected to.
    pub backends: PeerFaults,
}

/// What may happen to one kind of peer; each chance is taken once a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerFaults {
    /// It resets the connection, or vanishes, at some moment.
    pub reset: Chance,
    /// It ends its stream in the middle of whatever it was saying.
    pub early_end: Chance,
    /// It neither reads nor writes for a while.
    pub stall: Chance,
    /// From some moment on it neither reads nor writes, for ever.
    pub stall_for_ever: Chance,
}

impl PeerFaults {
    const NONE: Self = Self {
        reset: Chance::NEVER,
        early_end: Chance::NEVER,
        stall: Chance::NEVER,
        stall_for_ever: Chance::NEVER,
    };
}

impl Faults {
    /// A kind world: nothing goes wrong and buffers are roomy.
    pub const NONE: Self = Self {
        short_transfer: Chance::NEVER,
        socket_buffer_bytes: (256 * 1024, 256 * 1024),
        delay: Chance::NEVER,
        delay_max: Duration::from_millis(1),
        no_buffers: Chance::NEVER,
        accept_failed: Chance::NEVER,
        accept_aborted: Chance::NEVER,
        no_local_address: Chance::NEVER,
        connect_failed: Chance::NEVER,
        connect_refused: Chance::NEVER,
        connect_unanswered: Chance::NEVER,
        cancel_late: Chance::NEVER,
        cancel_missed: Chance::NEVER,
        spurious_wake: Chance::NEVER,
        clock_jump: Chance::NEVER,
        clock_jump_max: Duration::from_secs(1),
        clients: PeerFaults::NONE,
        backends: PeerFaults::NONE,
    };

    /// Draws the faults of a run. Each class is off in about half of the runs: with
    /// everything on in all of them, the faults would hide one another.
    pub fn draw(random: &mut Random) -> Self {
        let peer = |random: &mut Random| PeerFaults {
            reset: some(random, 400),
            early_end: some(random, 300),
            stall: some(random, 500),
            stall_for_ever: some(random, 200),
        };
        Self {
            short_transfer: some(random, 900),
            socket_buffer_bytes: {
                let least = random.magnitude(64, 65_536);
                (least, random.magnitude(least, 256 * 1024))
            },
            delay: some(random, 300),
            delay_max: random.duration(Duration::from_micros(100), Duration::from_millis(500)),
            no_buffers: some(random, 300),
            accept_failed: some(random, 300),
            accept_aborted: some(random, 200),
            no_local_address: some(random, 100),
            connect_failed: some(random, 200),
            connect_refused: some(random, 300),
            connect_unanswered: some(random, 200),
            cancel_late: some(random, 1000),
            cancel_missed: some(random, 300),
            spurious_wake: some(random, 100),
            clock_jump: some(random, 5),
            clock_jump_max: random.duration(Duration::from_millis(1), Duration::from_secs(20)),
            clients: peer(random),
            backends: peer(random),
        }
    }
}

/// Nothing in half of the cases, otherwise up to `most` in a thousand.
fn some(random: &mut Random, most: usize) -> Chance {
    if random.below(2) == 0 {
        return Chance::NEVER;
    }
    Chance(u16::try_from(random.magnitude(1, most)).unwrap_or(u16::MAX))
}

/// A fault that the world brought upon one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer reset the connection or vanished; what the engine is told.
    Reset(Errno),
    /// The peer ended its stream early.
    EarlyEnd,
    /// The peer neither read nor wrote for this long.
    Stall(Duration),
    /// The peer stopped reading and writing for ever.
    StallForEver,
    /// Accepting failed and the connection was lost.
    AcceptAborted,
    /// The address that the client connected to could not be told.
    NoLocalAddress,
    /// Connecting failed, at once or later.
    ConnectFailed(Errno),
    /// The connect was left unanswered.
    ConnectUnanswered,
}

impl Fault {
    /// Whether it keeps a conversation from coming to its end: all but those that only
    /// take time or information.
    pub fn is_cut(&self) -> bool {
        !matches!(self, Self::Stall(_) | Self::NoLocalAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_class_is_on_in_some_runs_and_off_in_others() {
        let runs: Vec<_> = (0..200).map(|seed| Faults::draw(&mut Random::new(seed))).collect();
        let classes: [fn(&Faults) -> Chance; 10] = [
            |faults| faults.short_transfer,
            |faults| faults.delay,
            |faults| faults.no_buffers,
            |faults| faults.accept_failed,
            |faults| faults.connect_refused,
            |faults| faults.cancel_late,
            |faults| faults.clock_jump,
            |faults| faults.clients.reset,
            |faults| faults.backends.early_end,
            |faults| faults.backends.stall_for_ever,
        ];
        for class in classes {
            let on = runs.iter().filter(|faults| class(faults) != Chance::NEVER).count();
            assert!((50..150).contains(&on), "on in {on} of 200 runs");
        }
    }
}
