//! Which address connections to the servers of a pool come from.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::endpoint::{Endpoint, LocalAddress};

/// Which address connections to servers come from. UNIX sockets have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceAddress {
    /// What the kernel chooses by its routes.
    #[default]
    ByRoute,
    /// One of this machine's. To servers of a family without one, what the kernel chooses.
    Own {
        /// To servers with IPv4 addresses.
        ipv4: Option<Ipv4Addr>,
        /// To servers with IPv6 addresses.
        ipv6: Option<Ipv6Addr>,
    },
    /// The client's. A server of the other family cannot have its clients.
    Client,
}

/// The client cannot come to the server from its own address, which is of another family.
/// It is not sent there from one of ours, since the server might trust that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's address is of another family than the server's")]
pub struct OtherFamily;

impl SourceAddress {
    /// The address of this machine that is meant for `server`, if any is.
    pub fn own_towards(&self, server: &SocketAddr) -> Option<IpAddr> {
        match self {
            Self::Own { ipv4, .. } if server.is_ipv4() => ipv4.map(IpAddr::V4),
            Self::Own { ipv6, .. } => ipv6.map(IpAddr::V6),
            Self::ByRoute | Self::Client => None,
        }
    }

    /// Where a connection of `client` to `server` comes from; `None` leaves it to the kernel.
    ///
    /// # Errors
    /// See [`OtherFamily`].
    pub fn towards(
        &self,
        server: &Endpoint,
        client: IpAddr,
    ) -> Result<Option<LocalAddress>, OtherFamily> {
        let Endpoint::Inet(server) = server else { return Ok(None) };
        match self {
            Self::ByRoute => Ok(None),
            Self::Own { .. } => {
                let own = self.own_towards(server);
                Ok(own.map(|address| LocalAddress { address, is_foreign: false }))
            }
            Self::Client => {
                // A dual-stack socket shows IPv4 addresses mapped into IPv6.
                let address = client.to_canonical();
                match address.is_ipv4() == server.is_ipv4() {
                    true => Ok(Some(LocalAddress { address, is_foreign: true })),
                    false => Err(OtherFamily),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [&str; 2] = ["192.0.2.9:80", "[2001:db8::9]:80"];

    fn towards(
        source: SourceAddress,
        server: &str,
        client: &str,
    ) -> Result<Option<IpAddr>, OtherFamily> {
        let server = Endpoint::Inet(server.parse().expect("a server"));
        let from = source.towards(&server, client.parse().expect("a client"))?;
        assert!(from.is_none_or(|from| from.is_foreign == (source == SourceAddress::Client)));
        Ok(from.map(|from| from.address))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn by_default_the_kernel_chooses() {
        for server in SERVERS {
            assert_eq!(towards(SourceAddress::ByRoute, server, "198.51.100.7"), Ok(None));
        }
    }

    #[test]
    fn an_address_of_ours_is_for_servers_of_its_family() {
        let ipv4 = Some(Ipv4Addr::new(192, 0, 2, 5));
        let source = SourceAddress::Own { ipv4, ipv6: None };
        assert_eq!(towards(source, SERVERS[0], "2001:db8::7"), Ok(address("192.0.2.5")));
        assert_eq!(towards(source, SERVERS[1], "2001:db8::7"), Ok(None));
    }

    #[test]
    fn a_client_comes_from_its_own_address_or_not_at_all() {
        let source = SourceAddress::Client;
        let v4 = address("198.51.100.7");
        assert_eq!(towards(source, SERVERS[0], "198.51.100.7"), Ok(v4));
        assert_eq!(towards(source, SERVERS[0], "::ffff:198.51.100.7"), Ok(v4));
        assert_eq!(towards(source, SERVERS[1], "2001:db8::7"), Ok(address("2001:db8::7")));
        assert_eq!(towards(source, SERVERS[1], "198.51.100.7"), Err(OtherFamily));
        assert_eq!(towards(source, SERVERS[0], "2001:db8::7"), Err(OtherFamily));
    }

    #[test]
    fn a_unix_socket_has_no_addresses() {
        let server = Endpoint::Unix("/run/web.sock".into());
        let client = "198.51.100.7".parse().expect("a client");
        assert_eq!(SourceAddress::Client.towards(&server, client), Ok(None));
    }
}
