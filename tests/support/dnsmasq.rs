//! dnsmasq as a nameserver for names below `test.`, whose answers hold for a second.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ports::free_address;
use super::program::{Server, command};

/// A nameserver that runs, or does not just now.
pub struct Dnsmasq {
    pub address: SocketAddr,
    hosts: PathBuf,
    server: Option<Server>,
}

impl Dnsmasq {
    /// Starts it with names of `hosts`, a hosts file, in `directory`. `services` are
    /// `name,target,port,priority,weight`.
    pub fn start(directory: &Path, hosts: &str, services: &[String]) -> Self {
        let hosts_file = directory.join("names");
        let mut dnsmasq = Self { address: free_address(), hosts: hosts_file, server: None };
        dnsmasq.answer(hosts, services);
        dnsmasq
    }

    /// It does not answer any more.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// From now on it answers so.
    pub fn answer(&mut self, hosts: &str, services: &[String]) {
        self.stop();
        fs::write(&self.hosts, hosts).expect("write");
        let mut dnsmasq = command("dnsmasq");
        dnsmasq
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
            .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--local=/test/"])
            .args(["--local-ttl=1", "--log-facility=-"])
            .arg(format!("--listen-address={}", self.address.ip()))
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--addn-hosts={}", self.hosts.display()))
            .args(services.iter().map(|service| format!("--srv-host={service}")));
        self.server = Some(Server::start(dnsmasq, self.address));
    }
}
