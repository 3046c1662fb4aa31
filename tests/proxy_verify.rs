//! `forebay proxy-verify`, the real binary: what it says of a header, and its exit codes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The first header of `docs/PROXY_AUTHENTICATION.md`, and when it was written.
const HEADER: &str = "0d0a0d0a000d0a515549540a2111004bc0000207c6336409d43101bb\n\
                      02000c73686f702e6578616d706c65\n\
                      e7002d0193a66f6a0000018bcfe56800\n\
                      3987f177f3977c693693e46b7b9884832b8a4e3e881a0911bdc47dc9796f64bb\n";
const WRITTEN: &str = "1700000000000";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

fn verify(keys: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["proxy-verify", "--keys"])
        .arg(keys)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It may end before it has read anything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

/// Exit code, and what it said.
fn verdict(output: &Output) -> (Option<i32>, String) {
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn key_file(directory: &Path, content: &str, mode: u32) -> std::path::PathBuf {
    let path = directory.join(format!("keys-{mode:o}"));
    std::fs::write(&path, content).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    path
}

fn binary() -> Vec<u8> {
    let digits: String = HEADER.split_whitespace().collect();
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).expect("a byte");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn a_genuine_header_is_believed_and_the_client_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = key_file(directory.path(), KEY, 0o600);
    let file = directory.path().join("header");
    let stream = [&binary()[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    std::fs::write(&file, &stream).expect("written");
    let file = file.to_str().expect("text");
    for (arguments, input) in [
        (&["--at", WRITTEN, "--hex"][..], HEADER.as_bytes()),
        (&["--at", WRITTEN], &stream),
        (&["--at", WRITTEN, file], b""),
    ] {
        let (code, said) = verdict(&verify(&keys, arguments, input));
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        for part in ["genuine: key 93a66f6a", "client 192.0.2.7:54321", "198.51.100.9:443"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn a_header_that_is_altered_or_old_or_of_another_key_is_not_believed() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = key_file(directory.path(), KEY, 0o600);
    let mut altered = binary();
    altered[16] ^= 1;
    let (code, said) = verdict(&verify(&keys, &["--at", WRITTEN], &altered));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("altered or forged"), "{said}");

    let (code, said) = verdict(&verify(&keys, &[], &binary()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("60000 ms are allowed"), "{said}");

    let others = key_file(directory.path(), &"07".repeat(32), 0o400);
    let (code, said) = verdict(&verify(&others, &["--at", WRITTEN], &binary()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key 93a66f6a, which is not among"), "{said}");
}

#[test]
fn keys_or_headers_that_cannot_be_read_are_the_callers_mistake() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = key_file(directory.path(), KEY, 0o644);
    let (code, said) = verdict(&verify(&open, &["--at", WRITTEN], &binary()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("chmod 600"), "{said}");

    let wrong = key_file(directory.path(), "# none\nsecret\n", 0o600);
    let (code, said) = verdict(&verify(&wrong, &["--at", WRITTEN], &binary()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2: a key has 64 hexadecimal digits"), "{said}");
    assert!(!said.contains("secret\n"), "the content stays unsaid: {said}");

    let keys = key_file(directory.path(), KEY, 0o400);
    let (code, said) = verdict(&verify(&keys, &["--hex"], &binary()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("standard input: is not hexadecimal"), "{said}");
}
