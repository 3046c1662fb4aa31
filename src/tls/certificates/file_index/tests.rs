//! What is written is read again; what is not ours is refused, whatever it is.

use proptest::prelude::*;

use super::*;
use crate::tls::self_signed::self_signed;

fn numbered(number: usize) -> Stamp {
    Stamp::parse(&format!("{number:032x}")).expect("a stamp")
}

fn snapshot(count: usize) -> Snapshot {
    let names = ["a.example", "*.b.example", "192.0.2.1", "2001:db8::1"];
    let model = self_signed(&names, CryptoLibrary::AwsLc).expect("made");
    let files = (0..count).map(|number| {
        let certificate = LoadedCertificate {
            source: Path::new(&format!("/etc/\"odd\"\n{number}.pem")).into(),
            key_type: KeyType::ALL[number % KeyType::ALL.len()],
            staple_ends: (number % 2 == 0).then_some(-1),
            ..model.clone()
        };
        (numbered(number), Arc::new(certificate))
    });
    Snapshot { library: CryptoLibrary::AwsLc, files: files.collect() }
}

#[test]
fn what_was_written_is_read_again() {
    let snapshot = snapshot(7);
    let index = FileIndex::read(snapshot.to_bytes()).expect("an index");
    assert_eq!(index.len(), 7);
    for (stamp, certificate) in &snapshot.files {
        let found = index.find(&certificate.source, *stamp, CryptoLibrary::AwsLc);
        let read = found.expect("known").certificate(
            certificate.source.clone(),
            None,
            snapshot.library,
            &Arc::default(),
        );
        assert_eq!(read.names, certificate.names);
        assert_eq!((read.key_type, read.key_bits), (certificate.key_type, certificate.key_bits));
        assert_eq!(read.not_before, certificate.not_before);
        assert_eq!(read.not_after, certificate.not_after);
        assert_eq!(read.staple_ends, certificate.staple_ends);
    }
}

#[test]
fn a_file_that_has_changed_or_was_read_for_another_library_is_not_known() {
    let snapshot = snapshot(1);
    let index = FileIndex::read(snapshot.to_bytes()).expect("an index");
    let (stamp, certificate) = &snapshot.files[0];
    assert!(index.find(&certificate.source, *stamp, CryptoLibrary::Ring).is_none());
    assert!(index.find(&certificate.source, numbered(1), CryptoLibrary::AwsLc).is_none());
    assert!(index.find(Path::new("other"), *stamp, CryptoLibrary::AwsLc).is_none());
}

#[test]
fn what_is_cut_off_damaged_foreign_or_of_another_format_says_so() {
    let bytes = snapshot(3).to_bytes();
    let error = |bytes: &[u8]| FileIndex::read(bytes.to_vec()).expect_err("no index");
    assert_eq!(error(b""), FileIndexError::Foreign);
    assert_eq!(error(b"\x7fELF\n"), FileIndexError::Foreign);
    assert_eq!(error(&bytes[..bytes.len() - 1]), FileIndexError::Damaged);
    let mut flipped = bytes.clone();
    *flipped.last_mut().expect("a byte") ^= 1;
    assert_eq!(error(&flipped), FileIndexError::Damaged);
    let text = String::from_utf8(bytes).expect("text");
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    assert_eq!(error(later.as_bytes()), FileIndexError::Foreign);
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    let body = "{\"file\":1}\n";
    let crc32 = crc32fast::hash(body.as_bytes());
    let head =
        format!("{{\"format\":1,\"library\":\"ring\",\"files\":1,\"crc32\":\"{crc32:08x}\"}}\n");
    let error = FileIndex::read([head, body.to_owned()].concat().into_bytes()).expect_err("none");
    assert!(error.to_string().starts_with("line 2 makes no sense: "), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = FileIndex::read(bytes);
    }
}
