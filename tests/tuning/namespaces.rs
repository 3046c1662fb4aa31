//! The kernel's own knobs, in network namespaces of the test's: what is set there is the
//! namespace's only. Files under /etc are covered by an empty file system.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::tool::{Ended, Shell, script, shells};

/// A network namespace, deleted when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    /// `None`, and a word about it, where none can be made.
    fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("forebay-tune-{}-{number}", std::process::id());
        let made = ip().args(["netns", "add", &name]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("skipped: no network namespace can be made (root and iproute2 are needed)");
            return None;
        }
        Some(Self { name })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs lines of shell in the namespace; they must succeed. `$tune` is the script with
    /// a state directory of its own, run by `shell`.
    #[track_caller]
    fn run(&self, shell: &Shell, lines: &str) -> String {
        let state = tempfile::tempdir().expect("directory");
        let interpreter = match shell.name() {
            "busybox" => "busybox sh",
            name => name,
        };
        let prologue = format!(
            "set -eu\n\
             mount -t tmpfs none /etc/sysctl.d\nmount -t tmpfs none /etc/systemd\n\
             state={}\n\
             tune() {{ command=$1; shift; {interpreter} {} $command --state $state/state \"$@\"; }}\n\
             ip link set lo up\n",
            state.path().display(),
            script().display(),
        );
        let mut command = self.command("sh");
        let ended = Ended::of(command.args(["-c", &format!("{prologue}{lines}")]));
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.output, ended.errors);
        ended.output
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip().args(["netns", "del", &self.name]).status();
    }
}

fn ip() -> Command {
    program("ip")
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn is_there(name: &str) -> bool {
    let there = program("sh").args(["-c", &format!("command -v {name}")]).output();
    there.is_ok_and(|there| there.status.success())
}

/// The groups whose every knob is the namespace's own.
const OWN: &str = "--only accept,ports,memory,latency,nic,conntrack,boot";

#[test]
fn every_sysctl_of_a_namespace_comes_back_as_it_was() {
    for shell in shells() {
        let Some(namespace) = Namespace::new() else { return };
        let configuration = tempfile::NamedTempFile::new().expect("file");
        let text = "[[listener]]\naddress = \":40443\"\n[[pool]]\nbackends = [\"a:1\"]\n\
                    [engine]\nmax_connections = 200000\n";
        std::fs::write(configuration.path(), text).expect("file");
        // nf_conntrack_count is a measurement, the key is one for each reader.
        let lines = format!(
            r#"
            show() {{
                find /proc/sys/net -type f ! -name nf_conntrack_count ! -name '*_key' | sort |
                    while read -r file; do echo "$file $(cat "$file" 2>/dev/null)"; done
            }}
            options="-c {} {OWN}"
            show >$state/before
            tune apply $options
            tune check $options
            show >$state/applied
            tune apply $options | grep '^0 set'
            show | cmp - $state/applied
            cp /etc/sysctl.d/90-forebay-tune.conf $state/persisted
            tune revert
            show | diff $state/before -
            [ -z "$(ls -A /etc/sysctl.d)" ] && [ ! -e $state/state ]
            # What is kept for the next boot says the same as what was set.
            sysctl -q -p $state/persisted
            show | diff $state/applied -
            echo "the range is $(cat /proc/sys/net/ipv4/ip_local_port_range)"
            echo "reserved are $(cat /proc/sys/net/ipv4/ip_local_reserved_ports)"
            "#,
            configuration.path().display()
        );
        let output = namespace.run(&shell, &lines);
        for part in ["the range is 10240\t65535", "reserved are 40443", "restored /proc/sys/net"] {
            assert!(output.contains(part), "{part} in {output}");
        }
    }
}

#[test]
fn the_queues_of_a_real_interface_serve_the_engines() {
    for shell in shells() {
        let Some(namespace) = Namespace::new() else { return };
        let configuration = tempfile::NamedTempFile::new().expect("file");
        let text = "[[listener]]\naddress = \":443\"\n[[pool]]\nbackends = [\"unix:/a\"]\n\
                    [engine]\ncpus = [0]\nengines = 4\n[handshake]\ninline = true\n";
        std::fs::write(configuration.path(), text).expect("file");
        let lines = format!(
            r#"
            ip link add few numrxqueues 2 numtxqueues 2 type veth \
                peer name one numrxqueues 1 numtxqueues 1
            show() {{ grep -r . /sys/class/net/few/queues/*/?ps_cpus /sys/class/net/one/queues/*/rps_cpus; }}
            show >$state/before
            options="-c {} --only nic --interface few,one"
            tune apply $options
            tune check $options
            show
            tune revert
            show | diff $state/before -
            "#,
            configuration.path().display()
        );
        let output = namespace.run(&shell, &lines);
        for queue in ["few/queues/rx-0/rps", "few/queues/rx-1/rps", "one/queues/rx-0/rps"] {
            let line = output.lines().find(|line| line.contains(&format!("{queue}_cpus:")));
            assert!(line.is_some_and(|line| line.ends_with('1')), "{queue} in {output}");
        }
        // The kernel has no such knob where there is nothing to choose.
        assert!(output.contains("one tx-0 xps_cpus") && output.contains("not on this machine"));
    }
}

/// `forebay demo` in a namespace, ended when dropped.
struct Demo {
    child: Child,
    /// For what it would remove at its end.
    _temporary: TempDir,
}

impl Demo {
    fn start(namespace: &Namespace, port: u16) -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let mut child = namespace
            .command(env!("CARGO_BIN_EXE_forebay"))
            .env("TMPDIR", temporary.path())
            .args(["demo", "--port", &port.to_string()])
            .args(["--admin", &format!("127.0.0.1:{}", port + 1)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.starts_with("Ctrl-C")));
        assert!(ready, "the demo runs");
        Self { child, _temporary: temporary }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_of_the_listeners_are_served_past_connection_tracking() {
    if !is_there("nft") || !is_there("curl") {
        eprintln!("skipped: nftables and curl are needed");
        return;
    }
    for shell in shells() {
        let Some(namespace) = Namespace::new() else { return };
        // The demo needs the loopback interface before it listens there.
        namespace.run(&shell, "");
        let demos = [Demo::start(&namespace, 8443), Demo::start(&namespace, 8453)];
        let configuration = tempfile::NamedTempFile::new().expect("file");
        let text = "[[listener]]\naddress = [\":8443\", \"127.0.0.1:8453\", \"[2001:db8::1]:1\"]\n\
                    [[pool]]\nbackends = [\"unix:/a\"]\n";
        std::fs::write(configuration.path(), text).expect("file");
        let lines = format!(
            r#"
            options="-c {} --only conntrack"
            tracked() {{ cat /proc/sys/net/netfilter/nf_conntrack_count; }}
            get() {{ for port in 8443 8453; do curl -sko /dev/null https://127.0.0.1:$port/; done; }}
            if ! [ -e /proc/sys/net/netfilter/nf_conntrack_count ]; then
                echo "skipped: this kernel tracks no connections"
                exit
            fi
            tune check $options | grep 'no rule asks for connection tracking'
            # A firewall that drops what it does not know.
            nft -f - <<-END
            table inet filter {{
                chain input {{
                    type filter hook input priority 0; policy drop;
                    ct state established accept
                    tcp dport {{ 8443, 8453 }} accept
                }}
            }}
END
            get
            with=$(tracked)
            # Replies would be dropped: it says so, and touches nothing.
            tune check $options | grep 'rules by ct state without untracked'
            tune apply $options | grep '^0 set'
            nft insert rule inet filter input ct state untracked accept
            nft list ruleset >$state/before
            tune check $options || tune apply $options
            tune check $options
            get
            [ $(tracked) -le $with ]
            tune apply $options | grep '^0 set'
            tune revert
            nft list ruleset | diff $state/before -
            get
            [ $(tracked) -gt $with ]
            echo done
            "#,
            configuration.path().display()
        );
        let output = namespace.run(&shell, &lines);
        drop(demos);
        if output.contains("skipped:") {
            eprintln!("skipped: this kernel tracks no connections");
            return;
        }
        assert!(output.ends_with("done\n"), "{output}");
    }
}
