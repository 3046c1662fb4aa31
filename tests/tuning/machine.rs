//! A machine in a directory: the files under /proc, /sys and /etc that the script looks
//! at, as a kernel of 2022 shows them on a server with eight cores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tool::{Ended, Shell};

const SYSCTLS: [(&str, &str); 18] = [
    ("net/core/somaxconn", "4096"),
    ("net/core/busy_poll", "0"),
    ("net/core/busy_read", "0"),
    ("net/ipv4/tcp_max_syn_backlog", "2048"),
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/ipv4/tcp_migrate_req", "0"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/ip_local_reserved_ports", ""),
    ("net/ipv4/tcp_tw_reuse", "2"),
    ("net/ipv4/tcp_timestamps", "1"),
    ("net/ipv4/tcp_max_tw_buckets", "262144"),
    ("net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
    ("net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("net/ipv4/tcp_mem", "378018\t504025\t756036"),
    ("net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("net/ipv4/tcp_slow_start_after_idle", "1"),
    ("fs/nr_open", "1048576"),
    ("fs/file-max", "9223372036854775807"),
];

/// 100,000 connections; engines on CPUs 0 to 5, workers on 6 and 7.
pub(crate) const CONFIGURATION: &str = r#"
[[listener]]
address = [":443", "192.0.2.1:8443"]   # "x" is no address
certificates = ["a.pem"]
pool = "web"

[[pool]]
name = "web"
backends = ["10.0.0.1:80", "10.0.0.2:80", "unix:/run/web.sock"]

[engine]
cpus = ["0-5"]
max_connections = 100_000

[handshake]
cpus = [6, 7]

[admin]
address = "127.0.0.1:9440"
"#;

/// What is at a path: the bytes of a file, or where a link leads; nothing for a directory.
pub(crate) type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub(crate) struct Machine {
    root: TempDir,
}

impl Machine {
    pub(crate) const CPUS: usize = 8;
    pub(crate) const QUEUES: usize = 6;

    pub(crate) fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().expect("directory") };
        for (key, value) in SYSCTLS {
            machine.write(&format!("/proc/sys/{key}"), value);
        }
        machine.write("/proc/sys/kernel/osrelease", "6.1.0");
        machine.write("/proc/sys/kernel/random/boot_id", "first");
        machine.write("/proc/meminfo", "MemTotal:       65536000 kB\nMemFree: 1 kB");
        machine.write("/proc/self/status", "Name:\tsh\nCpus_allowed_list:\t0-7");
        for cpu in 0..Self::CPUS {
            let cpu_directory = format!("/sys/devices/system/cpu/cpu{cpu}");
            let siblings = format!("{cpu_directory}/topology/thread_siblings_list");
            machine.write(&siblings, &cpu.to_string());
            let governors = format!("{cpu_directory}/cpufreq/scaling_available_governors");
            machine.write(&governors, "performance powersave");
            machine.write(&format!("{cpu_directory}/cpufreq/scaling_governor"), "powersave");
        }
        machine.write("/sys/devices/system/node/node0/cpulist", "0-7");
        machine.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
        machine.add_interface("eth0", Self::QUEUES);
        let queues: Vec<String> = (0..Self::QUEUES).map(|q| format!("eth0-TxRx-{q}")).collect();
        let mut interrupts = vec!["eth0"];
        interrupts.extend(queues.iter().map(String::as_str));
        machine.set_interrupts("eth0", &interrupts);
        for directory in ["/etc/sysctl.d", "/etc/systemd/system", "/var/lib"] {
            fs::create_dir_all(machine.path(directory)).expect("directory");
        }
        machine.write("/etc/forebay/forebay.toml", CONFIGURATION);
        machine
    }

    /// Adds an interface that is up, on memory node 0, with so many queues each way.
    pub(crate) fn add_interface(&self, name: &str, queues: usize) {
        let directory = format!("/sys/class/net/{name}");
        self.write(&format!("{directory}/operstate"), "up");
        self.write(&format!("{directory}/device/numa_node"), "0");
        self.remove(&format!("{directory}/queues"));
        for queue in 0..queues {
            self.write(&format!("{directory}/queues/rx-{queue}/rps_cpus"), "00");
            self.write(&format!("{directory}/queues/tx-{queue}/xps_cpus"), "00");
        }
    }

    /// Gives an interface interrupts of these names, numbered from 100 on.
    pub(crate) fn set_interrupts(&self, interface: &str, names: &[&str]) {
        let directory = format!("/sys/class/net/{interface}/device/msi_irqs");
        self.remove(&directory);
        let header: String = (0..Self::CPUS).map(|cpu| format!("       CPU{cpu}")).collect();
        let mut table = format!("      {header}\n  9:  0 0 0 0 0 0 0 0  IO-APIC 9-fasteoi acpi\n");
        for (number, name) in (100..).zip(names) {
            self.write(&format!("{directory}/{number}"), "msix");
            self.write(&format!("/proc/irq/{number}/smp_affinity_list"), "0-7");
            table += &format!(" {number}:  0 0 0 0 0 0 0 0  PCI-MSI 1-edge      {name}\n");
        }
        table += "NMI:  0 0 0 0 0 0 0 0  Non-maskable interrupts";
        self.write("/proc/interrupts", &table);
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file with one line's end behind `text`, and the directories above it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory above")).expect("directory");
        fs::write(path, format!("{text}\n")).expect("file");
    }

    /// The text of a file without its line's end.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        let text = fs::read_to_string(self.path(path));
        text.unwrap_or_else(|error| panic!("{path}: {error}")).trim_end().to_owned()
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }

    /// Everything there is.
    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        collect(self.root.path(), &mut contents);
        contents
    }

    /// The script on this machine.
    pub(crate) fn command(&self, shell: &Shell, arguments: &[&str]) -> Command {
        let mut command = shell.command(arguments);
        command.env("FOREBAY_TUNE_ROOT", self.root.path());
        command
    }

    pub(crate) fn run(&self, shell: &Shell, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(shell, arguments))
    }

    /// `check --format tsv` with more arguments.
    pub(crate) fn check(&self, shell: &Shell, arguments: &[&str]) -> Ended {
        self.run(shell, &[&["check", "--format", "tsv"], arguments].concat())
    }
}

fn collect(directory: &Path, contents: &mut Contents) {
    for entry in fs::read_dir(directory).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_symlink() {
            let to = fs::read_link(&path).expect("link").into_os_string().into_encoded_bytes();
            contents.insert(path, Some(to));
        } else if path.is_dir() {
            collect(&path, contents);
            contents.insert(path, None);
        } else {
            let bytes = fs::read(&path).expect("file");
            contents.insert(path, Some(bytes));
        }
    }
}
