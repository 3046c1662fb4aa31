//! What the handshake workers owe this engine, in their time, and whom it is for.
//!
//! Steps that are with the workers are added up by what steps of their class cost. While
//! the sum is below a bound nobody is limited. Beyond it the workers cannot keep up, and
//! what there is is shared:
//!
//! ```text
//!   owed     0 ──────────── bound ───────────────── 2 × bound
//!            everybody       who has less than his share    nobody yet
//!
//!   share = bound / sources (or names) that have steps with the workers
//! ```
//!
//! So whoever floods gets what the others leave, and who asks for little is served as if
//! there were no flood: his step waits for at most twice the bound. The second half of the
//! room is for those who come while the shares of others are still being worked off. What
//! is done with those who have had their share is the engine's: some are deferred, so that
//! a burst is served late and not refused.
//!
//! Names are counted in a table of fixed size by a hash with a key of this process's own:
//! two names that meet in one cell share a share, which nobody can bring about.
//!
//! May know: cost classes, names, the sources' counts. Must not know: connections,
//! sockets, workers.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::metrics::ShedCause;
use super::sources::{Source, Sources};
use crate::handshake::{CostClass, StepCosts};

/// Cells for names: with a few hundred names in a storm at one time, few of them meet.
const NAME_CELLS: usize = 4_096;

/// Worker time owed to one engine.
#[derive(Debug)]
pub(super) struct Backlog {
    costs: StepCosts,
    bound: Duration,
    /// Twice the bound; looked at in every turn.
    full: Duration,
    owed: Duration,
    /// By credit: what its step was counted as, while it is with a worker.
    charges: Box<[Option<Charge>]>,
    hash_key: RandomState,
    /// Owed to the names of each cell.
    names: Box<[Duration]>,
    /// Cells that are owed something.
    names_waiting: u32,
}

#[derive(Clone, Copy, Debug)]
struct Charge {
    cost: Duration,
    source: Source,
    name: usize,
}

/// The account of a name, which others may share.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameCell(usize);

impl Backlog {
    /// Takes the memory for an engine with so many `credits`, which may be owed `bound` of
    /// the workers' time before it is scarce.
    pub(super) fn new(credits: usize, costs: StepCosts, bound: Duration) -> Self {
        Self {
            costs,
            bound,
            full: 2 * bound,
            owed: Duration::ZERO,
            charges: vec![None; credits].into_boxed_slice(),
            hash_key: RandomState::new(),
            names: vec![Duration::ZERO; NAME_CELLS].into_boxed_slice(),
            names_waiting: 0,
        }
    }

    /// Bytes that the backlog of an engine with so many `credits` takes.
    pub(super) fn memory_bytes(credits: usize) -> usize {
        credits * size_of::<Option<Charge>>() + NAME_CELLS * size_of::<Duration>()
    }

    /// All that is owed.
    pub(super) fn owed(&self) -> Duration {
        self.owed
    }

    /// Whether the workers' time is scarce; while it is not nobody is limited.
    pub(super) fn is_scarce(&self) -> bool {
        self.owed >= self.bound
    }

    /// Whether so much is owed that nobody may begin.
    pub(super) fn is_full(&self) -> bool {
        self.owed >= self.full
    }

    /// Whether time is scarce and `source` has had its share.
    pub(super) fn limits_source(&self, source: Source, sources: &Sources) -> bool {
        let (owed, waiting) = sources.owed(source);
        self.is_scarce() && source != Source::EXEMPT && owed >= self.share(waiting)
    }

    /// Whether time is scarce and `source`, or the `name` that it asks for, has had its
    /// share; which of them.
    pub(super) fn limits(
        &self,
        source: Source,
        name: Option<&str>,
        sources: &Sources,
    ) -> Option<ShedCause> {
        if self.limits_source(source, sources) {
            return Some(ShedCause::SourceShare);
        }
        let owed = || self.names[self.cell(name)];
        let limited = self.is_scarce()
            && source != Source::EXEMPT
            && owed() >= self.share(self.names_waiting);
        limited.then_some(ShedCause::NameShare)
    }

    /// A step of this class goes to the workers with that credit.
    pub(super) fn charge(
        &mut self,
        credit: u32,
        class: CostClass,
        source: Source,
        NameCell(name): NameCell,
        sources: &mut Sources,
    ) {
        let cost = self.costs.of(class);
        let Some(charge) = self.charges.get_mut(credit as usize) else { return };
        debug_assert!(charge.is_none(), "a credit is with one worker at most");
        *charge = Some(Charge { cost, source, name });
        self.owed += cost;
        self.names_waiting += u32::from(self.names[name].is_zero());
        self.names[name] += cost;
        sources.charge(source, cost);
    }

    /// The step of that credit is back.
    pub(super) fn settle(&mut self, credit: u32, sources: &mut Sources) {
        let charge = self.charges.get_mut(credit as usize).and_then(Option::take);
        let Some(Charge { cost, source, name }) = charge else { return };
        self.owed = self.owed.saturating_sub(cost);
        self.names[name] = self.names[name].saturating_sub(cost);
        self.names_waiting -= u32::from(self.names[name].is_zero());
        sources.settle(source, cost);
    }

    fn share(&self, waiting: u32) -> Duration {
        self.bound / waiting.max(1)
    }

    /// Where the account of a name is.
    pub(super) fn cell_of(&self, name: Option<&str>) -> NameCell {
        NameCell(self.cell(name))
    }

    /// Clients that name no server are all together in one cell.
    fn cell(&self, name: Option<&str>) -> usize {
        self.hash_key.hash_one(name) as usize % NAME_CELLS
    }
}

#[cfg(test)]
mod tests;
