//! What a client's certificate decides beside whether it comes in: the first of several
//! numbers whose rules hold, where only some are in question for it.

use std::sync::Arc;

use super::{Client, ClientCertificate, Rules};

/// Rules, each with the number that it stands for, in order.
pub type Choices = Arc<[(Rules, usize)]>;

/// Those of the choices that are open to one client. Plain data: made for each client
/// without an allocation.
#[derive(Clone, Debug)]
pub struct OpenChoice {
    choices: Choices,
    open: [u64; Self::COUNT_MAX / u64::BITS as usize],
}

impl OpenChoice {
    /// The most choices.
    pub const COUNT_MAX: usize = 256;

    /// None of `choices`, which are at most [`Self::COUNT_MAX`], is open yet.
    pub fn new(choices: Choices) -> Self {
        Self { choices, open: Default::default() }
    }

    /// The choice at this place is open.
    pub fn open(&mut self, place: usize) {
        self.open[place / u64::BITS as usize] |= 1 << (place % u64::BITS as usize);
    }

    /// The numbers of those that are open.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let choices = self.choices.iter().enumerate();
        choices.filter(|(place, _)| self.is_open(*place)).map(|(_, (_, number))| *number)
    }

    fn is_open(&self, place: usize) -> bool {
        self.open[place / u64::BITS as usize] >> (place % u64::BITS as usize) & 1 == 1
    }

    /// The number of the first open one whose rules hold for the client.
    pub fn of(&self, client: &Client) -> Option<usize> {
        let own = client.chain().first()?;
        // Read once already, when the client came in.
        let certificate = ClientCertificate::parse(own).ok()?;
        let found = self
            .choices
            .iter()
            .enumerate()
            .find(|(place, (rules, _))| self.is_open(*place) && rules.allow(&certificate));
        found.map(|(_, (_, number))| *number)
    }
}
