//! Whether connections to servers can come from where they are to come from.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::config::{Finding, Settings};
use crate::upstream::SourceAddress;

/// What stands against it, tried on sockets that lead nowhere.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let sources = settings.pools.iter().filter_map(|pool| pool.source.as_ref());
    let mut findings = Vec::new();
    for source in sources {
        match source.value {
            SourceAddress::ByRoute => {}
            SourceAddress::Client => {
                if let Err(error) = may_be_transparent() {
                    let message = format!("not possible here: {error}");
                    let help = "the process needs CAP_NET_ADMIN \
                                (systemd: AmbientCapabilities= and CapabilityBoundingSet=)";
                    findings.push(settings.error(&source.place, message).with_help(help));
                }
            }
            SourceAddress::Own { ipv4, ipv6 } => {
                for address in [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)].into_iter().flatten() {
                    if let Err(error) = bind(address) {
                        let message = format!("{address} cannot be had now: {error}");
                        let help = "no server of its family can be connected until it is \
                                    an address of this machine";
                        findings.push(settings.warning(&source.place, message).with_help(help));
                    }
                }
            }
        }
    }
    findings
}

fn may_be_transparent() -> io::Result<()> {
    // The right is the same for both families.
    Socket::new(Domain::IPV4, Type::STREAM, None)?.set_ip_transparent_v4(true)
}

fn bind(address: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(address, 0);
    Socket::new(Domain::for_address(address), Type::STREAM, None)?.bind(&address.into())
}
