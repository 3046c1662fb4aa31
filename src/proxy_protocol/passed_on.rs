//! Values of a balancer in front, kept until the header to the server is written.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::TLV_BYTES;
use super::contents::TypeSet;
use super::decode::Values;
use super::encode::PASSED_ON_BYTES_MAX;

/// Values with their types and lengths, at most [`PASSED_ON_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOn(Box<[u8]>);

impl PassedOn {
    /// Those of `values` that are of the types `wanted`, in order, and whether all had room.
    pub fn of(values: Values<'_>, wanted: &TypeSet) -> (Self, bool) {
        let mut kept = ArrayVec::<u8, PASSED_ON_BYTES_MAX>::new();
        let mut all = true;
        for (kind, value) in values.iter().filter(|(kind, _)| wanted.contains(*kind)) {
            // A value has fewer bytes than a header, whose length has two bytes.
            let [high, low] = (value.len() as u16).to_be_bytes();
            let room = kept.remaining_capacity() >= TLV_BYTES + value.len();
            all &= room;
            if room {
                kept.extend([kind, high, low].into_iter().chain(value.iter().copied()));
            }
        }
        (Self(kept.as_slice().into()), all)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values.
    pub fn values(&self) -> Values<'_> {
        Values::stored(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(kinds: &[u8]) -> TypeSet {
        let mut types = TypeSet::default();
        kinds.iter().for_each(|kind| types.insert(*kind));
        types
    }

    #[test]
    fn only_the_types_asked_for_are_kept_in_their_order() {
        let received = b"\xea\x00\x02ab\x05\x00\x01c\xe1\x00\x00\xea\x00\x01d";
        let (kept, all) = PassedOn::of(Values::stored(received), &types(&[0xea, 0x05]));
        let values: Vec<_> = kept.values().iter().collect();
        assert_eq!(values, [(0xea, &b"ab"[..]), (0x05, b"c"), (0xea, b"d")]);
        assert!(all);
    }

    #[test]
    fn what_has_no_room_is_left_out_whole_and_what_follows_may_have() {
        let large = [b"\xea\x01\xfe".as_slice(), &[0; 510]].concat();
        let received = [large.as_slice(), b"\xea\x00\x01d"].concat();
        let (kept, all) = PassedOn::of(Values::stored(&received), &types(&[0xea]));
        assert_eq!(kept.values().iter().collect::<Vec<_>>(), [(0xea, &b"d"[..])]);
        assert!(!all);
    }
}
