//! Apply and revert: exactly what is told, and back to the byte.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::machine::Machine;
use super::tool::{Ended, Shell, shells};

const UNIT: &str = "/etc/systemd/system/forebay.service";
const SHIPPED_UNIT: &str = include_str!("../../tuning/forebay.service");
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-forebay-tune.conf";
const DROP_IN: &str = "/etc/systemd/system/forebay.service.d/50-forebay-tune.conf";
const BOOT_UNIT: &str = "/etc/systemd/system/forebay-tune.service";
const STATE: &str = "/var/lib/forebay-tune";

#[test]
fn after_apply_all_is_as_recommended_and_a_second_apply_changes_nothing() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write(UNIT, SHIPPED_UNIT);
        machine.run(&shell, &["apply", "--systemd"]).with_code(0);
        machine.check(&shell, &[]).with_code(0);
        let applied = machine.contents();
        let again = machine.run(&shell, &["apply", "--systemd"]).with_code(0).output;
        assert!(again.starts_with("0 set, "), "{again}");
        assert_eq!(machine.contents(), applied);
    }
}

#[test]
fn revert_puts_every_byte_back_and_leaves_nothing_behind() {
    for shell in shells() {
        let machine = Machine::new();
        // What an operator may have had at the places of the tool's own files.
        machine.write(SYSCTL_FILE, "net.ipv4.tcp_tw_reuse = 0");
        machine.write(UNIT, "[Service]\nLimitNOFILE=1024");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(machine.path(SYSCTL_FILE), mode).expect("mode");
        let before = machine.contents();
        machine.run(&shell, &["apply", "--systemd"]).with_code(0);
        assert_ne!(machine.contents(), before);
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before);
        let mode = fs::metadata(machine.path(SYSCTL_FILE)).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = machine.run(&shell, &["revert"]).with_code(0).output;
        assert!(again.starts_with("nothing to revert"), "{again}");
    }
}

#[test]
fn what_was_there_first_survives_later_applies() {
    for shell in shells() {
        let machine = Machine::new();
        let before = machine.contents();
        machine.run(&shell, &["apply"]).with_code(0);
        // Somebody turns a knob, and apply turns it back.
        machine.write("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "7");
        machine.check(&shell, &[]).with_code(1);
        machine.run(&shell, &["apply"]).with_code(0);
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before);
    }
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write(UNIT, "[Service]\nLimitNOFILE=1024");
        let before = machine.contents();
        let told = machine.run(&shell, &["apply", "--dry-run", "--systemd"]).with_code(0).output;
        assert_eq!(machine.contents(), before);
        machine.run(&shell, &["apply", "--systemd"]).with_code(0);
        for part in [
            "net.ipv4.tcp_tw_reuse: 2 -> 1",
            "irq 101 (eth0 rx 0): 0-7 -> 0",
            "forebay.service: 1024 8M -> 1048576 infinity",
            "90-forebay-tune.conf: absent -> generated",
            "forebay-tune.service: absent -> generated",
        ] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
        let applied = machine.contents();
        let told = machine.run(&shell, &["revert", "--dry-run"]).with_code(0).output;
        assert_eq!(machine.contents(), applied);
        assert!(told.contains("would restore /proc/irq/101/smp_affinity_list"), "{told}");
        assert!(told.contains("would remove /etc/sysctl.d/90-forebay-tune.conf"), "{told}");
    }
}

#[test]
fn a_group_can_be_applied_alone_and_the_next_one_later() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply", "--only", "accept"]).with_code(0);
        assert_eq!(machine.read("/proc/sys/net/ipv4/tcp_migrate_req"), "1");
        assert_eq!(machine.read("/proc/sys/net/ipv4/tcp_tw_reuse"), "2");
        machine.check(&shell, &["--only", "accept,boot"]).with_code(0);
        machine.run(&shell, &["apply", "--only=ports"]).with_code(0);
        let file = machine.read(SYSCTL_FILE);
        assert!(file.contains("\nnet.ipv4.tcp_migrate_req = 1"), "{file}");
        assert!(file.contains("\nnet.ipv4.tcp_tw_reuse = 1"), "{file}");
        machine.check(&shell, &["--only", "accept,ports,boot"]).with_code(0);
    }
}

#[test]
fn sysctl_d_has_what_was_changed_and_nothing_else() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply"]).with_code(0);
        let file = machine.read(SYSCTL_FILE);
        let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "net.ipv4.ip_local_port_range = 10240 65535",
                "net.ipv4.tcp_max_syn_backlog = 4096",
                "net.ipv4.tcp_mem = 2048000 3072000 4096000",
                "net.ipv4.tcp_migrate_req = 1",
                "net.ipv4.tcp_notsent_lowat = 131072",
                "net.ipv4.tcp_rmem = 4096 131072 16777216",
                "net.ipv4.tcp_slow_start_after_idle = 0",
                "net.ipv4.tcp_tw_reuse = 1",
                "net.ipv4.tcp_wmem = 4096 16384 16777216",
            ]
        );
        // Whoever edits it is told, and overruled by the next apply.
        machine.write(SYSCTL_FILE, "net.ipv4.tcp_tw_reuse = 0");
        let row = machine.check(&shell, &["--only", "boot"]).with_code(1).row(SYSCTL_FILE);
        assert_eq!(row.current, "another text");
        machine.run(&shell, &["apply"]).with_code(0);
        assert_eq!(machine.read(SYSCTL_FILE), file);
    }
}

#[test]
fn limits_too_low_for_the_configuration_get_a_drop_in_if_asked_for() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write(UNIT, SHIPPED_UNIT);
        machine.check(&shell, &["--only", "files"]).with_code(0);
        let large = machine.read("/etc/forebay/forebay.toml").replace("100_000", "1_000_000");
        machine.write("/etc/forebay/forebay.toml", &large);
        let left = machine.run(&shell, &["apply", "--only", "files"]).with_code(0).output;
        assert!(left.contains("left     forebay.service: 1048576 infinity"), "{left}");
        assert!(!machine.path(DROP_IN).exists());
        machine.run(&shell, &["apply", "--only", "files", "--systemd"]).with_code(0);
        // 6 × 166,667 × 2 + 128 + 6 × (32 + 2), and the roof above it.
        assert!(machine.read(DROP_IN).ends_with("LimitNOFILE=2000336\nLimitMEMLOCK=infinity"));
        assert_eq!(machine.read("/proc/sys/fs/nr_open"), "2000336");
        machine.check(&shell, &["--only", "files"]).with_code(0);
        // The operator's own drop-in counts, whichever comes last by name.
        machine.write(&DROP_IN.replace("50-forebay-tune", "99-mine"), "[Service]\nLimitNOFILE=9");
        let row = machine.check(&shell, &["--only", "files"]).with_code(1).row("forebay.service");
        assert_eq!(row.current, "9 infinity");
    }
}

#[test]
fn no_unit_gets_a_limit_that_the_kernel_does_not_allow() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write(UNIT, SHIPPED_UNIT);
        let large = machine.read("/etc/forebay/forebay.toml").replace("100_000", "1_000_000");
        machine.write("/etc/forebay/forebay.toml", &large);
        // A number that nobody can write.
        let roof = machine.path("/proc/sys/fs/nr_open");
        fs::remove_file(&roof).expect("file");
        symlink("/sys/devices/system/cpu/kernel_max", &roof).expect("link");
        machine.run(&shell, &["apply", "--only", "files", "--systemd"]).with_code(1);
        assert!(!machine.path(DROP_IN).exists());
    }
}

#[test]
fn the_unit_that_is_shipped_is_enough_for_what_the_tool_recommends_by_default() {
    for shell in shells() {
        let machine = Machine::new();
        machine.remove("/etc/forebay");
        machine.write("/usr/lib/systemd/system/forebay.service", SHIPPED_UNIT);
        let row = machine.check(&shell, &["--only", "files"]).with_code(0).row("forebay.service");
        assert_eq!(row.current, "1048576 infinity");
    }
}

#[test]
fn what_sysctl_d_cannot_keep_is_applied_at_boot_by_a_unit_if_asked_for() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply", "--only", "nic,boot"]).with_code(0);
        let row = machine.check(&shell, &["--only", "boot"]).row(BOOT_UNIT);
        assert_eq!((&*row.status, &*row.current), ("advice", "lost at the next boot"));
        // A configuration that is named relative to where the tool is run.
        let arguments =
            ["apply", "-c", "forebay.toml", "--only=nic", "--interface=eth0", "--systemd"];
        let mut command = machine.command(&shell, &arguments);
        Ended::of(command.current_dir(machine.path("/etc/forebay"))).with_code(0);
        let unit = machine.read(BOOT_UNIT);
        let program = super::tool::script();
        let file = machine.path("/etc/forebay/forebay.toml");
        let start = format!(
            "ExecStart=\"{}\" apply -c \"{}\" --interface eth0 --only nic --state \"{}\"\n",
            program.display(),
            file.display(),
            machine.path(STATE).display()
        );
        assert!(unit.contains(&start), "{start} in\n{unit}");
        assert!(unit.contains("\nBefore=forebay.service\n"), "{unit}");
        let wanted = "/etc/systemd/system/multi-user.target.wants/forebay-tune.service";
        assert_eq!(machine.read(wanted), unit);
        // The unit applies without --systemd: that must not take it away.
        machine.run(&shell, &["apply", "--only", "nic"]).with_code(0);
        assert_eq!(machine.read(BOOT_UNIT), unit);
    }
}

#[test]
fn what_a_boot_has_undone_is_not_put_back_a_second_time() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply", "--only", "nic,accept"]).with_code(0);
        // Another boot: interrupt 101 is another device's now, sysctl.d was read again.
        machine.write("/proc/sys/kernel/random/boot_id", "second");
        machine.write("/proc/irq/101/smp_affinity_list", "3");
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.read("/proc/irq/101/smp_affinity_list"), "3");
        assert_eq!(machine.read("/proc/sys/net/ipv4/tcp_migrate_req"), "0");
        assert!(!machine.path(STATE).exists());
    }
}

#[test]
fn a_knob_that_is_gone_at_revert_is_told_and_the_rest_goes_on() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply", "--only", "nic,accept"]).with_code(0);
        machine.remove("/sys/class/net/eth0");
        let told = machine.run(&shell, &["revert"]).with_code(0).output;
        assert!(told.contains("gone     /sys/class/net/eth0/queues/tx-5/xps_cpus"), "{told}");
        assert_eq!(machine.read("/proc/sys/net/ipv4/tcp_migrate_req"), "0");
    }
}

#[test]
fn what_the_kernel_refuses_is_told_and_the_rest_is_set() {
    for shell in shells() {
        let machine = Machine::new();
        // A list of CPUs that nobody can write; never CPU 1 alone.
        let refusing = machine.path("/proc/irq/102/smp_affinity_list");
        fs::remove_file(&refusing).expect("file");
        symlink("/sys/devices/system/cpu/possible", &refusing).expect("link");
        let told = machine.run(&shell, &["apply", "--only", "nic"]).with_code(1).output;
        assert!(told.contains("failed   irq 102 (eth0 rx 1)"), "{told}");
        assert_eq!(machine.read("/proc/irq/106/smp_affinity_list"), "5");
    }
}

#[test]
fn what_cannot_be_put_back_now_is_kept_for_later() {
    for shell in shells() {
        let machine = Machine::new();
        let before = machine.contents();
        machine.run(&shell, &["apply", "--only", "accept"]).with_code(0);
        let blocked = "/proc/sys/net/ipv4/tcp_migrate_req";
        machine.remove(blocked);
        fs::create_dir(machine.path(blocked)).expect("directory");
        machine.run(&shell, &["revert"]).with_code(1);
        assert_eq!(machine.read("/proc/sys/net/ipv4/tcp_max_syn_backlog"), "2048");
        machine.remove(blocked);
        machine.write(blocked, "1");
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before);
    }
}

/// Stands in the way of `program`: does what it does, but the `last`th call of any of
/// them ends everything instead, as SIGKILL or a power cut would.
fn wrap(directory: &Path, program: &str, last: usize) {
    let calls = directory.join("calls");
    let text = format!(
        "#!/bin/sh\necho >>{calls}\n[ $(wc -l <{calls}) -ne {last} ] || kill -9 0\n\
         PATH=${{PATH#*:}}\nexec {program} \"$@\"\n",
        calls = calls.display()
    );
    let file = directory.join(program);
    fs::write(&file, text).expect("file");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("mode");
}

/// Runs the script until the call number `last` of a program that changes files, and
/// returns whether it came that far.
fn run_until(machine: &Machine, shell: &Shell, arguments: &[&str], last: usize) -> bool {
    let wrappers = tempfile::tempdir().expect("directory");
    for program in ["ln", "rm", "mkdir", "cp"] {
        wrap(wrappers.path(), program, last);
    }
    let mut command = machine.command(shell, arguments);
    let path = std::env::var("PATH").expect("PATH");
    command.env("PATH", format!("{}:{path}", wrappers.path().display()));
    Ended::of(&mut command).code.is_none()
}

/// A machine on which the group `files` changes one of each: a value of the kernel, a file
/// that was there, one that was not, and its directory.
fn machine_to_be_cut_short() -> Machine {
    let machine = Machine::new();
    machine.write(UNIT, "[Service]\nLimitNOFILE=1024");
    machine.write(SYSCTL_FILE, "net.ipv4.tcp_tw_reuse = 0");
    let large = machine.read("/etc/forebay/forebay.toml").replace("100_000", "1_000_000");
    machine.write("/etc/forebay/forebay.toml", &large);
    machine
}

const APPLY: [&str; 4] = ["apply", "--only", "files", "--systemd"];

#[test]
fn an_apply_that_is_cut_short_anywhere_can_be_reverted_and_repeated() {
    let shell = Shell::of_the_machine();
    let machine = machine_to_be_cut_short();
    let before = machine.contents();
    let mut last = 1;
    while run_until(&machine, &shell, &APPLY, last) {
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before, "after the call {last}");
        // The other way out: go on, and revert then.
        assert!(run_until(&machine, &shell, &APPLY, last));
        machine.run(&shell, &APPLY).with_code(0);
        machine.check(&shell, &["--only", "files,boot"]).with_code(0);
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before, "after the call {last}");
        last += 1;
    }
    assert!(last > 10, "only {last} calls");
}

#[test]
fn a_revert_that_is_cut_short_anywhere_can_be_repeated() {
    let shell = Shell::of_the_machine();
    let machine = machine_to_be_cut_short();
    let before = machine.contents();
    let mut last = 1;
    loop {
        machine.run(&shell, &APPLY).with_code(0);
        if !run_until(&machine, &shell, &["revert"], last) {
            break;
        }
        machine.run(&shell, &["revert"]).with_code(0);
        assert_eq!(machine.contents(), before, "after the call {last}");
        last += 1;
    }
    assert!(last > 5, "only {last} calls");
}
