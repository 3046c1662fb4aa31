//! Wrong use: one clear error, exit code 2, and nothing is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::machine::{CONFIGURATION, Machine};
use super::tool::{Ended, script, shells};

#[test]
fn a_wrong_command_line_is_refused_by_name() {
    for shell in shells() {
        let machine = Machine::new();
        for (arguments, complaint) in [
            (&["tune"][..], "there is no command 'tune'"),
            (&["check", "--fast"], "there is no option '--fast'"),
            (&["check", "--only"], "--only wants a value"),
            (&["check", "--only", "accept,nics"], "--only nics: the groups are accept ports"),
            (&["check", "--format", "json"], "write table or tsv"),
            (&["check", "--interface", "eth9"], "there is no such interface"),
            (&["apply", "--state", "state"], "write a path that begins with /"),
            (&["apply", "now"], "what is 'now'?"),
            (&["explain", "everything"], "nothing is called 'everything'"),
            (&[], "usage:"),
        ] {
            let before = machine.contents();
            let ended = machine.run(&shell, arguments).with_code(2);
            assert!(ended.errors.contains(complaint), "{complaint} in {}", ended.errors);
            assert_eq!(machine.contents(), before);
        }
        for arguments in [&["--help"][..], &["check", "--help"]] {
            let help = machine.run(&shell, arguments).with_code(0).output;
            assert!(help.contains("forebay-tune revert"), "{help}");
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_before_anything_is_changed() {
    for shell in shells() {
        let machine = Machine::new();
        let words = CONFIGURATION.replace("100_000", "\"many\"");
        let no_listener = CONFIGURATION.replace("listener", "listner");
        for (configuration, complaint) in [
            (&*words, "cannot make a number of: engine.max_connections = \"many\""),
            (&no_listener, "no [[listener]] with an address"),
            ("", "no [[listener]] with an address"),
            ("\u{0}\u{1}[[[", "no [[listener]] with an address"),
        ] {
            machine.write("/etc/forebay/forebay.toml", configuration);
            let before = machine.contents();
            for command in ["check", "apply", "explain"] {
                let ended = machine.run(&shell, &[command]).with_code(2);
                assert!(ended.errors.contains(complaint), "{complaint} in {}", ended.errors);
                assert!(ended.errors.contains("forebay.toml: "), "{}", ended.errors);
            }
            assert_eq!(machine.contents(), before);
        }
        let missing = machine.run(&shell, &["check", "-c", "/nowhere.toml"]).with_code(2);
        assert!(missing.errors.contains("/nowhere.toml cannot be read"), "{}", missing.errors);
    }
}

#[test]
fn what_the_program_finds_wrong_is_passed_on() {
    for shell in shells() {
        let machine = Machine::new();
        let wrong = CONFIGURATION.replace("100_000", "0");
        machine.write("/etc/forebay/forebay.toml", &wrong);
        let program = ["check", "--forebay", env!("CARGO_BIN_EXE_forebay")];
        let ended = machine.run(&shell, &program).with_code(2);
        for part in ["engine.max_connections", "forebay.toml:", "correct it first"] {
            assert!(ended.errors.contains(part), "{part} in {}", ended.errors);
        }
    }
}

#[test]
fn only_root_may_change_a_machine_and_everybody_may_look() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    // Copied, since the place of the sources may be root's only.
    let place = tempfile::tempdir_in("/tmp").expect("directory");
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("mode");
    let copy = place.path().join("forebay-tune");
    fs::copy(script(), &copy).expect("copy");
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh"]);
        command.arg(&copy).args(arguments).env_remove("FOREBAY_TUNE_ROOT");
        Ended::of(&mut command)
    };
    let looked = run(&["check", "--format", "tsv"]);
    assert!(matches!(looked.code, Some(0 | 1)), "{}{}", looked.output, looked.errors);
    for command in ["apply", "revert"] {
        let refused = run(&[command]).with_code(2);
        assert!(refused.errors.contains("must be run as root"), "{}", refused.errors);
    }
}
