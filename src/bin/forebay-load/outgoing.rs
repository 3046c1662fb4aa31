//! Bytes on their way to a socket: filled at the end, written from the start, in memory
//! that is used again without being cleared.

use std::io::{self, ErrorKind, Write};

/// Memory of this size is kept when all is written; more goes back.
const KEPT_BYTES_MAX: usize = 256 * 1_024;

/// Bytes to be written.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    memory: Vec<u8>,
    written: usize,
    filled: usize,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.filled
    }

    /// What is still to be written.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.memory[self.written..self.filled]
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Memory of `bytes` behind what is pending; [`Self::fill`] says how much of it is used.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        &mut self.memory[self.filled..end]
    }

    pub(crate) fn fill(&mut self, bytes: usize) {
        self.filled += bytes;
        debug_assert!(self.filled <= self.memory.len(), "more than there was room for");
    }

    /// Writes as much as `socket` takes. True when nothing is left.
    ///
    /// # Errors
    /// The socket's; that it would block is none.
    pub(crate) fn write_to(&mut self, mut socket: impl Write) -> io::Result<bool> {
        while !self.is_empty() {
            match socket.write(self.pending()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(true)
    }

    /// Forgets what is pending.
    pub(crate) fn clear(&mut self) {
        (self.written, self.filled) = (0, 0);
        if self.memory.len() > KEPT_BYTES_MAX {
            self.memory = Vec::new();
        }
    }

    /// Gives the memory back, for a connection that will be idle.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at a time, then says that it would block.
    struct Slow(Vec<u8>, usize);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.1.min(bytes.len());
            self.1 -= count;
            self.0.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_socket_does_not_take_stays_in_order() {
        let mut outgoing = Outgoing::default();
        outgoing.append(b"abcdef");
        let mut socket = Slow(Vec::new(), 4);
        assert!(!outgoing.write_to(&mut socket).expect("no error"));
        assert_eq!(outgoing.pending(), b"ef");
        outgoing.room(10)[..2].copy_from_slice(b"gh");
        outgoing.fill(2);
        socket.1 = 100;
        assert!(outgoing.write_to(&mut socket).expect("no error"));
        assert_eq!((socket.0.as_slice(), outgoing.is_empty()), (&b"abcdefgh"[..], true));
    }

    #[test]
    fn memory_is_used_again_and_given_back_on_request() {
        let mut outgoing = Outgoing::default();
        outgoing.append(&[1; 1_000]);
        let address = outgoing.pending().as_ptr();
        assert!(outgoing.write_to(&mut io::sink()).expect("no error"));
        outgoing.append(&[2; 500]);
        assert_eq!(outgoing.pending().as_ptr(), address);
        outgoing.shrink();
        assert_eq!(outgoing.pending(), [2; 500], "pending bytes stay");
        outgoing.clear();
        outgoing.shrink();
        assert_eq!(outgoing.memory.capacity(), 0);
    }
}
