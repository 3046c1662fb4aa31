//! The index of certificate files: what was in each when it was read, written down so that
//! the next process need not read 100,000 files before it can begin.
//!
//! ```text
//!   {"format":1,"library":"aws-lc-rs","files":2,"crc32":"89abcdef"}
//!   {"file":"/etc/forebay/a.pem","stamp":"…","names":["a.example"],"key":"EcdsaP256",…}
//!   {"file":"/etc/forebay/b.pem",…}
//! ```
//!
//! It saves time and is trusted for nothing else: a line counts only while the file's stamp
//! is the same; chain and key are read from the file all the same when a client asks, and
//! are not used if they are for other names. Whatever is wrong with an index, the files are
//! read instead.
//!
//! Sans-I/O: bytes in, bytes out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use serde::{Deserialize, Serialize};

use super::signing::KeyCache;
use super::store::Stamp;
use super::{
    CertificateName, CertificatePolicy, CertificateSignature, KeyType, LoadedCertificate, Signing,
};
use crate::tls::CryptoLibrary;

/// Changes whenever an older forebay could misread it.
const FORMAT: u32 = 1;

/// The first line has about 80.
const HEAD_BYTES_MAX: usize = 1_024;

/// What is written down of the certificates in force.
#[derive(Debug)]
pub struct Snapshot {
    /// For whom they were read: libraries differ in the keys that they take.
    pub library: CryptoLibrary,
    /// Each file's stamp and contents.
    pub files: Vec<(Stamp, Arc<LoadedCertificate>)>,
}

/// An index that was read. Its lines are made sense of when their files come up: of the
/// whole there are two blocks of memory, which are given back at once.
#[derive(Default)]
pub struct FileIndex {
    library: CryptoLibrary,
    bytes: Option<Bytes>,
    /// Where the line of a file begins, and where it ends.
    lines: HashMap<PathDigest, Range<usize>>,
}

/// Memory of whatever kind.
type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Half of a SHA-256 digest of a path.
type PathDigest = [u8; 16];

/// What is known of a file without reading it.
#[derive(Debug)]
pub(super) struct Facts {
    names: Arc<[CertificateName]>,
    key_type: KeyType,
    key_bits: u16,
    signature: CertificateSignature,
    not_before: i64,
    not_after: i64,
    staple_ends: Option<i64>,
}

/// Why an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileIndexError {
    /// Not ours, or of another version.
    #[error("is not an index of certificates in format {FORMAT}")]
    Foreign,
    /// Other bytes than were written.
    #[error("is damaged")]
    Damaged,
    /// Its line says something that cannot be.
    #[error("line {line} makes no sense: {detail}")]
    Nonsense {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    library: Library,
    files: usize,
    crc32: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Library {
    AwsLcRs,
    Ring,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    file: Cow<'a, Path>,
    stamp: String,
    names: Vec<String>,
    key: Kind,
    key_bits: u16,
    signature: CertificateSignature,
    not_before: i64,
    not_after: i64,
    staple_ends: Option<i64>,
}

/// Of a line what is needed to find it.
#[derive(Deserialize)]
struct Beginning<'a> {
    #[serde(borrow)]
    file: Cow<'a, Path>,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    EcdsaP256,
    Ed25519,
    EcdsaP384,
    EcdsaP521,
    Rsa,
}

impl Snapshot {
    /// Writes the index as a file. A path that is no UTF-8 is left out, and read each time.
    ///
    /// Every line is made twice, for its checksum and for the file: what holds 100,000 of
    /// them in memory would stay with the process.
    ///
    /// # Errors
    /// Those of `file`.
    pub fn write_to(&self, mut file: impl Write) -> io::Result<()> {
        let mut line = Vec::new();
        let mut crc32 = crc32fast::Hasher::new();
        let mut files = 0;
        for known in self.known() {
            set_line(&mut line, &Line::of(known));
            crc32.update(&line);
            files += 1;
        }
        let library = match self.library {
            CryptoLibrary::AwsLc => Library::AwsLcRs,
            CryptoLibrary::Ring => Library::Ring,
        };
        let crc32 = format!("{:08x}", crc32.finalize());
        set_line(&mut line, &Head { format: FORMAT, library, files, crc32 });
        file.write_all(&line)?;
        for known in self.known() {
            set_line(&mut line, &Line::of(known));
            file.write_all(&line)?;
        }
        Ok(())
    }

    /// The same, in memory.
    #[cfg(test)]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("memory takes everything");
        bytes
    }

    fn known(&self) -> impl Iterator<Item = &(Stamp, Arc<LoadedCertificate>)> {
        self.files.iter().filter(|(_, certificate)| certificate.source.to_str().is_some())
    }
}

impl<'a> Line<'a> {
    fn of((stamp, certificate): &'a (Stamp, Arc<LoadedCertificate>)) -> Self {
        Self {
            file: (&*certificate.source).into(),
            stamp: stamp.to_string(),
            names: certificate.names.iter().map(ToString::to_string).collect(),
            key: certificate.key_type.into(),
            key_bits: certificate.key_bits,
            signature: certificate.signature,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            staple_ends: certificate.staple_ends,
        }
    }
}

fn set_line(bytes: &mut Vec<u8>, line: &impl Serialize) {
    bytes.clear();
    // Neither these types nor a Vec can fail.
    if serde_json::to_writer(&mut *bytes, line).is_ok() {
        bytes.push(b'\n');
    }
}

impl fmt::Debug for FileIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { library, bytes: _, lines } = self;
        let lines = lines.len();
        formatter
            .debug_struct("FileIndex")
            .field("library", library)
            .field("lines", &lines)
            .finish_non_exhaustive()
    }
}

impl FileIndex {
    /// Reads what [`Snapshot::write_to`] made.
    ///
    /// # Errors
    /// It is something else, or no longer whole.
    pub fn read(memory: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, FileIndexError> {
        let bytes = memory.as_ref();
        let head_bytes = bytes.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
        let head_bytes = head_bytes.ok_or(FileIndexError::Foreign)?;
        let head: Head =
            serde_json::from_slice(&bytes[..head_bytes]).map_err(|_| FileIndexError::Foreign)?;
        if head.format != FORMAT {
            return Err(FileIndexError::Foreign);
        }
        let mut begin = head_bytes + 1;
        let body = &bytes[begin..];
        if head.crc32 != format!("{:08x}", crc32fast::hash(body)) {
            return Err(FileIndexError::Damaged);
        }
        let library = match head.library {
            Library::AwsLcRs => CryptoLibrary::AwsLc,
            Library::Ring => CryptoLibrary::Ring,
        };
        // A line has well over 100 bytes; a head may say anything.
        let mut lines = HashMap::with_capacity(head.files.min(body.len() / 100));
        for (number, line) in body.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = begin..begin + line.len();
            begin = place.end;
            let beginning: Beginning<'_> = serde_json::from_slice(line).map_err(|error| {
                FileIndexError::Nonsense { line: number + 2, detail: error.to_string() }
            })?;
            lines.insert(digest_of(&beginning.file), place);
        }
        if lines.len() != head.files {
            return Err(FileIndexError::Damaged);
        }
        Ok(Self { library, bytes: Some(Box::new(memory)), lines })
    }

    fn line(&self, place: &Range<usize>) -> Option<&[u8]> {
        let bytes: &[u8] = (**self.bytes.as_ref()?).as_ref();
        bytes.get(place.clone())
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What `file` holds, if it is still as it was, and what is said of it makes sense.
    pub(super) fn find(&self, file: &Path, stamp: Stamp, library: CryptoLibrary) -> Option<Facts> {
        if library != self.library {
            return None;
        }
        let place = self.lines.get(&digest_of(file))?;
        let line: Line<'_> = serde_json::from_slice(self.line(place)?).ok()?;
        if *line.file != *file || Stamp::parse(&line.stamp)? != stamp {
            return None;
        }
        let names = line.names.iter().map(|name| CertificateName::parse(name));
        Some(Facts {
            names: names.collect::<Option<_>>()?,
            key_type: line.key.into(),
            key_bits: line.key_bits,
            signature: line.signature,
            not_before: line.not_before,
            not_after: line.not_after,
            staple_ends: line.staple_ends,
        })
    }

    /// Makes sense of every line, for whoever wants to know that it can be done.
    pub(crate) fn understand_all(&self) -> usize {
        let lines = self.lines.values().filter_map(|place| self.line(place));
        let lines = lines.filter_map(|line| serde_json::from_slice::<Line<'_>>(line).ok());
        let found = lines
            .filter_map(|line| self.find(&line.file, Stamp::parse(&line.stamp)?, self.library));
        found.count()
    }
}

fn digest_of(path: &Path) -> PathDigest {
    let digest = digest::digest(&SHA256, path.as_os_str().as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

impl Facts {
    /// The certificate in `source`; chain and key are read when somebody asks. Its policy is
    /// not among the facts: what forbids something is read from where it was written.
    pub(super) fn certificate(
        self,
        source: Arc<Path>,
        policy: Option<Arc<CertificatePolicy>>,
        library: CryptoLibrary,
        keys: &Arc<KeyCache>,
    ) -> LoadedCertificate {
        let signing = Signing::on_disk(
            Arc::clone(&source),
            Arc::clone(&self.names),
            library,
            None,
            self.staple_ends,
            keys,
        );
        LoadedCertificate {
            source,
            names: self.names,
            key_type: self.key_type,
            key_bits: self.key_bits,
            signature: self.signature,
            not_before: self.not_before,
            not_after: self.not_after,
            staple_ends: self.staple_ends,
            policy,
            signing,
        }
    }
}

impl From<KeyType> for Kind {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::EcdsaP256 => Self::EcdsaP256,
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::EcdsaP384 => Self::EcdsaP384,
            KeyType::EcdsaP521 => Self::EcdsaP521,
            KeyType::Rsa => Self::Rsa,
        }
    }
}

impl From<Kind> for KeyType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::EcdsaP256 => Self::EcdsaP256,
            Kind::Ed25519 => Self::Ed25519,
            Kind::EcdsaP384 => Self::EcdsaP384,
            Kind::EcdsaP521 => Self::EcdsaP521,
            Kind::Rsa => Self::Rsa,
        }
    }
}

#[cfg(test)]
mod tests;
