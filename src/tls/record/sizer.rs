//! How long records should be: short while the path is cold, long when it is warm.
//!
//! A record can be opened only when all of it has arrived. While the congestion window
//! is small, a 16 KiB record waits for a round trip or a lost segment before its first
//! byte is of use; a record that fits one segment does not. Once data flows, long
//! records cost less CPU and fewer bytes.

use std::time::Duration;

use super::limits::{HEADER_BYTES_MAX, PLAINTEXT_BYTES_MAX};
use crate::clock::Moment;
use crate::tls::aead::TAG_BYTES;

/// Bytes of TCP payload in one segment that holds on nearly every path: an Ethernet
/// frame of 1,500 bytes less PPPoE (8, RFC 2516), IPv6 (40), TCP (20) and its timestamps
/// (12, RFC 7323 appendix A).
const SEGMENT_BYTES: usize = 1_500 - 8 - 40 - 20 - 12;

/// Bytes that a record adds, for the suite that adds most: AES-GCM in TLS 1.2.
const RECORD_OVERHEAD_BYTES: usize = HEADER_BYTES_MAX + TAG_BYTES;

/// Plaintext that fits one TCP segment as one record: 1,391 bytes.
pub const SEGMENT_PLAINTEXT_BYTES: usize = SEGMENT_BYTES - RECORD_OVERHEAD_BYTES;

/// Plaintext that fits three TCP segments as one record, the middle step: 4,231 bytes.
pub const THREE_SEGMENTS_PLAINTEXT_BYTES: usize = 3 * SEGMENT_BYTES - RECORD_OVERHEAD_BYTES;

/// Default of `small_bytes`: about the initial congestion window of ten segments (RFC
/// 6928), which is what leaves at once after silence.
pub const SMALL_BYTES_DEFAULT: u32 = 16 << 10;

/// Default of `idle_after`: a few round trips, after which a sender falls back to a small
/// window (RFC 5681 section 4.1).
pub const SMALL_STEP_IDLE_DEFAULT: Duration = Duration::from_secs(1);

/// The middle step ends when this many times `small_bytes` are sent: the window has
/// doubled twice by then.
const MIDDLE_STEP_FACTOR: u32 = 4;

/// Chooses the record maximum for each run of one connection.
#[derive(Clone, Debug)]
pub struct RecordSizer {
    /// When the last run was sized.
    last: Moment,
    idle_after_milliseconds: u32,
    small_bytes: u32,
    /// Bytes since silence, saturating.
    sent_bytes: u32,
}

impl RecordSizer {
    /// A sizer that starts over after `idle_after` of silence (at most 49 days), and
    /// gives the first `small_bytes` the smallest records. With `small_bytes` 0 every
    /// record is as long as can be.
    pub fn new(idle_after: Duration, small_bytes: u32) -> Self {
        Self {
            last: Moment::default(),
            idle_after_milliseconds: u32::try_from(idle_after.as_millis()).unwrap_or(u32::MAX),
            small_bytes,
            sent_bytes: 0,
        }
    }

    /// The record maximum for a run of `plaintext_bytes` that is sealed at `now`.
    ///
    /// The whole run gets one maximum, so a step ends with the run that reaches it.
    pub fn next(&mut self, now: Moment, plaintext_bytes: usize) -> usize {
        let idle_after = Duration::from_millis(u64::from(self.idle_after_milliseconds));
        if now.since(self.last) >= idle_after {
            self.sent_bytes = 0;
        }
        self.last = now;
        let record_plaintext_max = if self.sent_bytes < self.small_bytes {
            SEGMENT_PLAINTEXT_BYTES
        } else if self.sent_bytes < self.small_bytes.saturating_mul(MIDDLE_STEP_FACTOR) {
            THREE_SEGMENTS_PLAINTEXT_BYTES
        } else {
            PLAINTEXT_BYTES_MAX
        };
        let plaintext_bytes = u32::try_from(plaintext_bytes).unwrap_or(u32::MAX);
        self.sent_bytes = self.sent_bytes.saturating_add(plaintext_bytes);
        record_plaintext_max
    }
}

impl Default for RecordSizer {
    fn default() -> Self {
        Self::new(SMALL_STEP_IDLE_DEFAULT, SMALL_BYTES_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanoseconds(5_000_000_000);

    #[test]
    fn a_small_record_fits_one_segment_and_a_middle_one_three() {
        assert_eq!(SEGMENT_PLAINTEXT_BYTES, 1_391);
        assert_eq!(THREE_SEGMENTS_PLAINTEXT_BYTES, 4_231);
    }

    #[test]
    fn records_grow_while_data_flows() {
        let mut sizer = RecordSizer::default();
        assert_eq!(sizer.next(START, 10_000), SEGMENT_PLAINTEXT_BYTES);
        assert_eq!(sizer.next(START, 10_000), SEGMENT_PLAINTEXT_BYTES);
        assert_eq!(sizer.next(START, 40_000), THREE_SEGMENTS_PLAINTEXT_BYTES);
        assert_eq!(sizer.next(START, 10_000), THREE_SEGMENTS_PLAINTEXT_BYTES);
        assert_eq!(sizer.next(START, 10_000), PLAINTEXT_BYTES_MAX);
    }

    #[test]
    fn silence_makes_them_small_again() {
        let mut sizer = RecordSizer::default();
        sizer.next(START, 1 << 20);
        let almost = START.after(Duration::from_millis(999));
        assert_eq!(sizer.next(almost, 1), PLAINTEXT_BYTES_MAX);
        let silent = almost.after(Duration::from_secs(1));
        assert_eq!(sizer.next(silent, 1), SEGMENT_PLAINTEXT_BYTES);
    }

    #[test]
    fn nothing_is_small_when_the_small_step_is_off() {
        let mut sizer = RecordSizer::new(Duration::from_secs(1), 0);
        assert_eq!(sizer.next(START, 1), PLAINTEXT_BYTES_MAX);
    }

    #[test]
    fn endless_data_does_not_start_over() {
        let mut sizer = RecordSizer::default();
        sizer.next(START, usize::MAX);
        assert_eq!(sizer.next(START, usize::MAX), PLAINTEXT_BYTES_MAX);
    }

    #[test]
    fn a_sizer_is_small() {
        assert!(size_of::<RecordSizer>() <= 24);
    }
}
