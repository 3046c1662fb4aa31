//! What is recommended, for which machine and which configuration.

use super::machine::{CONFIGURATION, Machine};
use super::tool::{Ended, Row, shells};

fn facts(row: &Row) -> [&str; 3] {
    [&row.status, &row.current, &row.recommended]
}

#[test]
fn what_differs_is_told_with_its_reasons_and_by_the_exit_code() {
    for shell in shells() {
        let checked = Machine::new().check(&shell, &[]).with_code(1);
        let row = checked.row("net.ipv4.tcp_migrate_req");
        assert_eq!(facts(&row), ["differs", "0", "1"]);
        assert!(row.reasons.iter().all(|reason| !reason.is_empty()), "{row:?}");
        assert_eq!(checked.row("net.ipv4.tcp_syncookies").status, "ok");
    }
}

#[test]
fn the_table_for_people_has_the_reasons_below_what_differs() {
    for shell in shells() {
        let machine = Machine::new();
        let table = machine.run(&shell, &["check", "--only", "accept"]).with_code(1).output;
        for part in [
            "CPUs 0-7; cores: 8; memory nodes: 1; 64000 MiB; interfaces: eth0",
            "listens on [::]:443 192.0.2.1:8443; engines on CPUs 0-5, workers on 6-7",
            "differs  net.ipv4.tcp_migrate_req",
            "why:",
            "[ip-sysctl.rst;",
            "risk:",
            "ok       net.ipv4.tcp_syncookies",
        ] {
            assert!(table.contains(part), "{}: {part} in\n{table}", shell.name());
        }
    }
}

#[test]
fn numbers_follow_the_configuration_and_the_machine() {
    for shell in shells() {
        let checked = Machine::new().check(&shell, &[]);
        for (setting, recommended) in [
            // 100,000 connections to TCP: more than there are ports.
            ("net.ipv4.ip_local_port_range", "at least 55296 ports"),
            ("net.ipv4.tcp_max_tw_buckets", "at least 200000"),
            ("net.ipv4.tcp_wmem", "maximum at least 16777216"),
            // A quarter of the memory would be 4,096,000 pages; 256 KiB each are more.
            ("net.ipv4.tcp_mem", "at least 2048000 3072000 4096000"),
            // 6 × 16,667 × 2 + 128 + 6 × (32 + 2), and 65,536 beside it.
            ("fs.file-max", "at least 265872"),
        ] {
            assert_eq!(checked.row(setting).recommended, recommended);
        }
    }
}

#[test]
fn what_is_more_than_needed_is_left() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write("/proc/sys/net/core/somaxconn", "1000000");
        machine.write("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432");
        machine.write("/proc/sys/net/ipv4/tcp_notsent_lowat", "16384");
        machine.write("/proc/sys/net/ipv4/ip_local_port_range", "1024\t65535");
        let checked = machine.check(&shell, &[]);
        for setting in ["net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_notsent_lowat"] {
            assert_eq!(checked.row(setting).status, "ok", "{setting}");
        }
        assert_eq!(checked.row("net.ipv4.ip_local_port_range").status, "ok");
    }
}

#[test]
fn backends_behind_unix_sockets_need_no_local_ports() {
    for shell in shells() {
        let machine = Machine::new();
        let unix_only = CONFIGURATION.replace("\"10.0.0.1:80\", \"10.0.0.2:80\", ", "");
        machine.write("/etc/forebay/forebay.toml", &unix_only);
        let checked = machine.check(&shell, &[]);
        for setting in ["net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse"] {
            assert_eq!(checked.row(setting).status, "ok", "{setting}");
        }
    }
}

#[test]
fn ports_to_listen_on_are_reserved_where_outgoing_connections_could_take_them() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8080,40000-40010");
        let high = CONFIGURATION.replace(":8443", ":40443").replace(":9440", ":40005");
        machine.write("/etc/forebay/forebay.toml", &high);
        machine.run(&shell, &["apply", "--only", "ports"]).with_code(0);
        // 443 is below the range, 40005 reserved already.
        let reserved = machine.read("/proc/sys/net/ipv4/ip_local_reserved_ports");
        assert_eq!(reserved, "8080,40000-40010,40443");
    }
}

#[test]
fn a_queue_of_the_card_and_the_engine_of_its_number_share_a_cpu() {
    for shell in shells() {
        let machine = Machine::new();
        machine.run(&shell, &["apply", "--only", "nic"]).with_code(0);
        // 100 is not a queue's: it tells of the link.
        assert_eq!(machine.read("/proc/irq/100/smp_affinity_list"), "0-7");
        for queue in 0..Machine::QUEUES {
            let interrupt = 101 + queue;
            let affinity = machine.read(&format!("/proc/irq/{interrupt}/smp_affinity_list"));
            assert_eq!(affinity, queue.to_string());
            let queues = "/sys/class/net/eth0/queues";
            let sent_from = machine.read(&format!("{queues}/tx-{queue}/xps_cpus"));
            assert_eq!(sent_from, format!("{:x}", 1 << queue));
            // A queue for each engine: packets need not be passed on.
            assert_eq!(machine.read(&format!("{queues}/rx-{queue}/rps_cpus")), "00");
        }
    }
}

#[test]
fn with_few_queues_packets_are_passed_on_to_the_engines() {
    for shell in shells() {
        let machine = Machine::new();
        machine.add_interface("eth0", 2);
        machine.set_interrupts("eth0", &["virtio0-config", "virtio0-input.0", "virtio0-output.0"]);
        machine.run(&shell, &["apply", "--only", "nic"]).with_code(0);
        // Engines 0, 2, 4 and 1, 3, 5.
        for (queue, mask) in [(0, "15"), (1, "2a")] {
            for file in [format!("rx-{queue}/rps_cpus"), format!("tx-{queue}/xps_cpus")] {
                assert_eq!(machine.read(&format!("/sys/class/net/eth0/queues/{file}")), mask);
            }
        }
        let checked = machine.check(&shell, &["--only", "nic"]).with_code(0);
        assert_eq!(checked.row("eth0 receive queues").status, "advice");
    }
}

#[test]
fn masks_of_many_cpus_are_written_in_words_of_32_bits() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write("/proc/self/status", "Cpus_allowed_list:\t0-127");
        let far = CONFIGURATION.replace("[\"0-5\"]", "[31, 32, 100]").replace("[6, 7]", "[101]");
        machine.write("/etc/forebay/forebay.toml", &far);
        machine.add_interface("eth0", 1);
        machine.run(&shell, &["apply", "--only", "nic"]).with_code(0);
        let mask = machine.read("/sys/class/net/eth0/queues/rx-0/rps_cpus");
        assert_eq!(mask, "10,00000000,00000001,80000000");
        // As the kernel shows it.
        machine.write("/sys/class/net/eth0/queues/rx-0/rps_cpus", &format!("000000{mask}"));
        machine.check(&shell, &["--only", "nic"]).with_code(0);
    }
}

#[test]
fn interrupts_are_found_by_the_names_that_drivers_give_them() {
    let drivers: [(&str, &[&str], &[&str]); 7] = [
        ("ixgbe", &["eth0", "eth0-TxRx-0", "eth0-TxRx-1"], &["", "rx 0", "rx 1"]),
        ("mlx5", &["mlx5_async0@pci:0000:3b:00.0", "mlx5_comp0@pci:0000:3b:00.0"], &["", "rx 0"]),
        ("ena", &["ena-mgmnt@pci:0000:00:05.0", "eth0-Tx-Rx-0"], &["", "rx 0"]),
        ("ice", &["ice-0000:18:00.0:misc", "ice-eth0-TxRx-3"], &["", "rx 3"]),
        (
            "virtio",
            &["virtio0-config", "virtio0-input.1", "virtio0-output.1"],
            &["", "rx 1", "tx 1"],
        ),
        ("e1000e", &["eth0-rx-0", "eth0-tx-0", "eth0"], &["rx 0", "tx 0", ""]),
        ("r8169", &["eth0"], &["rx 0"]),
    ];
    for shell in shells() {
        for (driver, names, queues) in drivers {
            let machine = Machine::new();
            machine.set_interrupts("eth0", names);
            let checked = machine.check(&shell, &["--only", "nic"]);
            let found: Vec<String> = checked
                .rows()
                .into_iter()
                .map(|row| row.setting)
                .filter(|setting| setting.starts_with("irq "))
                .collect();
            let expected: Vec<String> = (100..)
                .zip(queues)
                .filter(|(_, queue)| !queue.is_empty())
                .map(|(number, queue)| format!("irq {number} (eth0 {queue})"))
                .collect();
            assert_eq!(found, expected, "{driver}");
        }
    }
}

#[test]
fn interrupts_of_another_interface_are_not_taken() {
    for shell in shells() {
        let machine = Machine::new();
        machine.set_interrupts("eth0", &["eth0-TxRx-0", "eth01-TxRx-0", "veth0-TxRx-0"]);
        // Without the list of the device, names are all there is.
        machine.remove("/sys/class/net/eth0/device/msi_irqs");
        let checked = machine.check(&shell, &["--only", "nic"]);
        let rows = checked.rows();
        let found: Vec<&Row> = rows.iter().filter(|row| row.setting.starts_with("irq ")).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].setting, "irq 100 (eth0 rx 0)");
    }
}

#[test]
fn interfaces_that_are_down_or_virtual_are_left_alone() {
    for shell in shells() {
        let machine = Machine::new();
        machine.add_interface("eth1", 2);
        machine.write("/sys/class/net/eth1/operstate", "down");
        machine.add_interface("bond0", 2);
        machine.remove("/sys/class/net/bond0/device");
        let rows = machine.check(&shell, &["--only", "nic"]).rows();
        let of = |name| rows.iter().filter(|row| row.setting.contains(name)).count();
        assert!(of("eth0") > 0);
        assert_eq!((of("eth1"), of("bond0")), (0, 0));
        // Unless they are asked for.
        let rows = machine.check(&shell, &["--only", "nic", "--interface=bond0"]).rows();
        assert!(rows.iter().any(|row| row.setting == "bond0 tx-1 xps_cpus"));
        assert!(!rows.iter().any(|row| row.setting.starts_with("eth0")));
    }
}

#[test]
fn who_would_undo_it_and_what_only_the_operator_can_change_is_advice() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write("/proc/4711/comm", "irqbalance");
        machine.write("/proc/4712/comm", "forebay");
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files";
        machine.write("/proc/4712/limits", limits);
        machine.write("/sys/devices/system/node/node0/cpulist", "0-3");
        let checked = machine.check(&shell, &["--only", "nic,files"]);
        let advice = |setting| {
            let row = checked.row(setting);
            assert_eq!(row.status, "advice", "{row:?}");
            (row.current, row.recommended)
        };
        assert_eq!(advice("irqbalance").0, "runs as process 4711");
        assert_eq!(advice("open files of process 4712"), ("4096".into(), "200336".into()));
        assert!(advice("eth0 memory node").0.contains("CPU 5, far from it: use 0-3"));
    }
}

#[test]
fn engines_and_workers_on_one_core_are_told_how_to_part() {
    for shell in shells() {
        let machine = Machine::new();
        for cpu in 0..Machine::CPUS {
            let siblings = format!("{},{}", cpu % 4, cpu % 4 + 4);
            let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            machine.write(&file, &siblings);
        }
        let row = machine.check(&shell, &["--only", "cpu"]).row("engines and workers");
        assert_eq!(row.status, "advice");
        let keys = "[engine] cpus = [\"0-2\", \"4-6\"], [handshake] cpus = [3, 7]";
        assert_eq!(row.recommended, keys);
        // With them there is nothing to tell.
        let parted = CONFIGURATION
            .replace("cpus = [\"0-5\"]", "cpus = [\"0-2\", \"4-6\"]")
            .replace("cpus = [6, 7]", "cpus = [3, 7]");
        machine.write("/etc/forebay/forebay.toml", &parted);
        let row = machine.check(&shell, &["--only", "cpu"]).row("engines and workers");
        assert_eq!(row.status, "ok");
    }
}

#[test]
fn a_machine_without_a_knob_says_so_and_the_rest_goes_on() {
    for shell in shells() {
        let machine = Machine::new();
        for missing in [
            "/proc/sys/net/ipv4/tcp_migrate_req",
            "/proc/sys/net/core",
            "/proc/interrupts",
            "/sys/devices/system/cpu",
            "/sys/devices/system/node",
            "/sys/kernel/mm",
            "/sys/class/net/eth0/queues",
            "/proc/meminfo",
        ] {
            machine.remove(missing);
        }
        let checked = machine.check(&shell, &[]).with_code(1);
        for setting in [
            "net.ipv4.tcp_migrate_req",
            "net.core.somaxconn",
            "eth0 interrupts",
            "scaling_governor",
            "transparent_hugepage",
            "inet forebay_notrack",
            "forebay.service",
        ] {
            assert_eq!(checked.row(setting).status, "absent", "{setting}");
        }
        let applied = machine.run(&shell, &["apply"]).with_code(0).output;
        assert!(applied.contains("set      net.ipv4.tcp_tw_reuse: 2 -> 1"), "{applied}");
        machine.check(&shell, &[]).with_code(0);
    }
}

#[test]
fn a_machine_without_anything_is_still_answered() {
    for shell in shells() {
        let machine = Machine::new();
        for everything in ["/proc", "/sys", "/etc/systemd", "/etc/sysctl.d"] {
            machine.remove(everything);
        }
        let checked = machine.check(&shell, &[]).with_code(0);
        assert!(checked.rows().iter().all(|row| ["absent", "ok"].contains(&&*row.status)));
        machine.run(&shell, &["apply"]).with_code(0);
        assert!(!machine.path("/var/lib/forebay-tune").exists());
    }
}

#[test]
fn another_file_that_would_win_at_boot_is_named() {
    for shell in shells() {
        let machine = Machine::new();
        let theirs = "# net.ipv4.tcp_migrate_req = 0\nnet/ipv4/tcp_tw_reuse=2\nvm.swappiness = 1";
        machine.write("/etc/sysctl.d/99-local.conf", theirs);
        machine.write("/etc/sysctl.d/10-early.conf", "net.ipv4.tcp_migrate_req = 0");
        machine.run(&shell, &["apply"]).with_code(0);
        let checked = machine.check(&shell, &["--only", "boot"]);
        let row = checked.row("/etc/sysctl.d/99-local.conf");
        assert_eq!(facts(&row)[..2], ["advice", "read later: net.ipv4.tcp_tw_reuse = 2"]);
        assert!(!checked.rows().iter().any(|row| row.setting.contains("10-early")));
    }
}

#[test]
fn a_configuration_that_is_not_there_is_assumed_and_that_is_said() {
    for shell in shells() {
        let machine = Machine::new();
        machine.remove("/etc/forebay");
        let table = machine.run(&shell, &["check"]).with_code(1).output;
        assert!(table.contains("is not there: assumed are port 443, a TCP backend"), "{table}");
        assert!(table.contains("listens on [::]:443; engines on CPUs 0-5, workers on 6-7; 8192"));
    }
}

#[test]
fn what_the_engines_switches_need_is_set_where_they_are_on() {
    for shell in shells() {
        let machine = Machine::new();
        machine.write("/proc/sys/vm/nr_hugepages", "7");
        for knob in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
            machine.write(&format!("/sys/class/net/eth0/{knob}"), "0");
        }
        let checked = machine.check(&shell, &["--only", "nic,cpu"]);
        for setting in ["vm.nr_hugepages", "deferred interrupts"] {
            assert_eq!(checked.row(setting).status, "absent", "{setting}");
        }
        let switches = "[engine]\nhuge_pages = \"on\"\nnapi_busy_poll = \"200us\"\nbuffers = 4000";
        let configuration = CONFIGURATION.replace("[engine]", switches);
        machine.write("/etc/forebay/forebay.toml", &configuration);
        machine.run(&shell, &["apply", "--only", "nic,cpu"]).with_code(0);
        // 4,000 × 17,472 + 32 × 69,632 bytes are 35 pages, for each of six engines.
        assert_eq!(machine.read("/proc/sys/vm/nr_hugepages"), "210");
        assert_eq!(machine.read("/sys/class/net/eth0/napi_defer_hard_irqs"), "2");
        assert_eq!(machine.read("/sys/class/net/eth0/gro_flush_timeout"), "400000");
    }
}

/// Configurations that say the same thing in the ways that TOML allows, or leave it out.
#[test]
fn the_tool_reads_a_configuration_as_the_program_does() {
    let last = Ended::of(std::process::Command::new("nproc").env("LC_ALL", "C"));
    let last: usize = last.output.trim().parse::<usize>().expect("a number") - 1;
    let pool = "[[pool]]\nname = \"a\"\nbackends = [\"10.0.0.1:80\"]\n";
    let listener = "[[listener]]\naddress = \":443\"\ncertificates = [\"a.pem\"]\npool = \"a\"\n";
    let configurations = [
        format!("{listener}{pool}"),
        format!("{pool}{listener}[engine]\nmax_connections = 1_000_000 # = 7\nbacklog=65535\n"),
        format!("engine.max_connections = 77\nhandshake . inline = true\n{listener}{pool}"),
        format!("{listener}{pool}[engine]\nengines = 3\n[handshake]\nworkers = 2\n"),
        format!("{listener}{pool}[engine]\nengines = \"auto\"\ncpus = [ {last} ]\n"),
        format!("{listener}{pool}[handshake]\ncpus = [\"{last}-{last}\"]\n"),
        format!("{listener}{pool}[engine]\nengines = 1\n[handshake]\ninline = true\n"),
        format!(
            "{listener}{pool}[engine]\nhuge_pages = 'on'\nmax_connections = 1000000\n\
             large_buffers = 5\nnapi_busy_poll = \"150us\"\nspin = \"10us\"\nsteer = \"cpu\"\n"
        ),
        format!("{listener}{pool}[engine]\nhuge_pages = \"auto\"\nnapi_busy_poll = \"2ms\"\n"),
        format!(
            "{listener}{pool}[[listener]]\nname = 'b # c'\naddress = [\n  '[::1]:40443', # one\n  \
             \"192.0.2.1:8443\",\n]\ncertificates = [\"a.pem\"]\npool = \"b\"\n[[pool]]\n\
             name = \"b\"\nbackends = [\"10.0.0.1:80\", \"unix:/a\", \"h.example:80\"]\n\
             [admin]\naddress = \"127.0.0.1:50440\"\r\n"
        ),
    ];
    // Without processes, which come and go.
    let rows = |checked: &Ended| -> Vec<Row> {
        let rows = checked.rows().into_iter();
        rows.filter(|row| !row.setting.contains("process")).collect()
    };
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("forebay.toml");
    let file = file.to_str().expect("UTF-8");
    for shell in shells() {
        for configuration in &configurations {
            std::fs::write(file, configuration).expect("file");
            let check = |more: &[&str]| {
                let arguments = ["check", "--format=tsv", "-c", file];
                Ended::of(&mut shell.command([&arguments, more].concat()))
            };
            let program = check(&["--forebay", env!("CARGO_BIN_EXE_forebay")]);
            let (program, alone) = (rows(&program), rows(&check(&[])));
            assert!(program.len() > 20 && program.len() == alone.len(), "{configuration}");
            for (program, alone) in program.iter().zip(&alone) {
                assert_eq!(alone, program, "{configuration}");
            }
        }
    }
}

#[test]
fn every_setting_is_explained() {
    for shell in shells() {
        let machine = Machine::new();
        let all = machine.run(&shell, &["explain"]).with_code(0).output;
        for row in machine.check(&shell, &[]).rows() {
            // The reasons, since knobs of one kind are explained together.
            assert!(all.contains(&row.reasons[0]), "{} in\n{all}", row.setting);
        }
        let one = machine.run(&shell, &["explain", "notsent"]).with_code(0).output;
        assert!(
            one.contains("here    net.ipv4.tcp_notsent_lowat: 4294967295; recommended: at most")
        );
        assert!(!one.contains("somaxconn"));
        let group = machine.run(&shell, &["explain", "latency"]).with_code(0).output;
        assert!(group.contains("tcp_slow_start_after_idle") && !group.contains("somaxconn"));
    }
}
