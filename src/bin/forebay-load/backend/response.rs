//! Answers, ready to be sent: small ones whole from memory, the bodies of large ones from a
//! file that lives in memory, which the kernel sends without a copy.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use rustix::fs::{MemfdFlags, memfd_create};
use socket2::Socket;

/// Answers with more bytes are sent from the file.
pub(super) const COPIED_BYTES_MAX: u64 = 64 * 1_024;
/// The file's size: the most that one call sends.
const FILE_BYTES: usize = 1 << 20;
/// Whole answers that are kept; a load asks for few sizes.
const KEPT_MAX: usize = 8;

/// One thread's answers.
pub(super) struct Responses {
    file: File,
    /// By the number of bytes asked for, the latest used first.
    kept: Vec<(u64, Vec<u8>)>,
}

impl Responses {
    pub(super) fn new() -> io::Result<Self> {
        let mut file = File::from(memfd_create("forebay-load", MemfdFlags::CLOEXEC)?);
        file.write_all(&vec![b'x'; FILE_BYTES])?;
        Ok(Self { file, kept: Vec::new() })
    }

    /// Head and body of a small answer.
    pub(super) fn whole(&mut self, bytes: u64) -> &[u8] {
        let found = self.kept.iter().position(|(size, _)| *size == bytes);
        let index = found.unwrap_or_else(|| {
            self.kept.truncate(KEPT_MAX - 1);
            let mut answer = head("200 OK", bytes, true).into_bytes();
            answer.resize(answer.len() + bytes as usize, b'x');
            self.kept.push((bytes, answer));
            self.kept.len() - 1
        });
        self.kept.swap(0, index);
        &self.kept[0].1
    }

    /// Sends the next part of a body of which `left` bytes are not sent yet; how many were.
    pub(super) fn send_body(&self, socket: &Socket, left: u64) -> io::Result<usize> {
        let count = left.min(FILE_BYTES as u64) as usize;
        socket.sendfile(&self.file, 0, NonZeroUsize::new(count))
    }
}

/// The head of an answer.
pub(super) fn head(status: &str, bytes: u64, keep_alive: bool) -> String {
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    format!("HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\n{connection}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_made_once_and_are_of_the_right_size() {
        let mut responses = Responses::new().expect("memory");
        for _ in 0..2 {
            for bytes in 0..12 {
                let answer = responses.whole(bytes);
                let length = format!("Content-Length: {bytes}\r\n");
                let text = String::from_utf8_lossy(answer);
                assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains(&length));
                assert_eq!(text.split_once("\r\n\r\n").unwrap().1.len() as u64, bytes);
            }
        }
        assert_eq!(responses.kept.len(), KEPT_MAX);
    }
}
