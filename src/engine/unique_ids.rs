//! Names for connections, which no other connection has (PP2_TYPE_UNIQUE_ID).
//!
//! ```text
//!   64 bits of chance, made by a reload | engine, 16 bits | count, 48 bits
//! ```
//!
//! In hexadecimal digits, because receivers log what they get.

use crate::proxy_protocol::Contents;
use crate::proxy_protocol::contents::Value;

/// Counts the names of one engine.
#[derive(Debug, Default)]
pub(super) struct UniqueIds {
    made: u64,
}

impl UniqueIds {
    /// The next name; `None` if headers of these contents have none.
    pub(super) fn next(&mut self, engine: usize, contents: &Contents) -> Option<[u8; 32]> {
        if !contents.values.contains(Value::UniqueId) {
            return None;
        }
        self.made += 1;
        let own = (engine as u64) << 48 | self.made & 0xffff_ffff_ffff;
        let number = u128::from(contents.unique_ids) << 64 | u128::from(own);
        Some(std::array::from_fn(|place| {
            let digit = (number >> (4 * (31 - place))) as u8 & 0xf;
            if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_protocol::contents::ValueSet;

    #[test]
    fn names_differ_by_count_engine_and_configuration() {
        let contents = |unique_ids| Contents {
            values: ValueSet::NONE.with(Value::UniqueId),
            unique_ids,
            ..Contents::default()
        };
        let (mut one, mut two) = (UniqueIds::default(), UniqueIds::default());
        let text = |ids: &mut UniqueIds, engine, chance| {
            let name = ids.next(engine, &contents(chance)).expect("a name");
            String::from_utf8(name.to_vec()).expect("digits")
        };
        assert_eq!(text(&mut one, 1, 0xab), "00000000000000ab0001000000000001");
        assert_eq!(text(&mut one, 1, 0xab), "00000000000000ab0001000000000002");
        assert_eq!(text(&mut two, 2, 0xab), "00000000000000ab0002000000000001");
        assert_eq!(text(&mut two, 2, 0xac), "00000000000000ac0002000000000002");
    }

    #[test]
    fn nobody_who_does_not_ask_is_named() {
        let mut ids = UniqueIds::default();
        assert_eq!(ids.next(0, &Contents::default()), None);
        assert_eq!(ids.made, 0);
    }
}
