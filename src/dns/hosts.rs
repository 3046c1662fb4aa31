//! `/etc/hosts`, as hosts(5) has it: names that need no nameserver.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names and their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads what can be understood of `text`.
    pub fn parse(text: &str) -> Self {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else { continue };
            for name in words {
                hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
            }
        }
        Self(hosts)
    }

    /// The addresses of `name`, which is in lower case. `localhost` has some in any case
    /// (RFC 6761 section 6.3).
    pub fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let loopback = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let known = self.0.get(name).cloned();
        known.or_else(|| (name == "localhost").then(loopback))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_of_all_its_lines() {
        let hosts = Hosts::parse(
            "# the servers\n10.0.0.1 App.example app # 10.0.0.9\n2001:db8::1\tapp.example\n\
             app 10.0.0.2\n10.0.0.3\n",
        );
        let expected: Vec<IpAddr> =
            ["10.0.0.1", "2001:db8::1"].map(|at| at.parse().unwrap()).into();
        assert_eq!(hosts.addresses("app.example"), Some(expected.clone()));
        assert_eq!(hosts.addresses("app.example."), Some(expected));
        assert_eq!(hosts.addresses("other.example"), None);
    }

    #[test]
    fn the_machine_itself_needs_no_line() {
        assert_eq!(Hosts::default().addresses("localhost").map(|all| all.len()), Some(2));
        let own = Hosts::parse("127.0.0.1 localhost").addresses("localhost");
        assert_eq!(own, Some(vec![Ipv4Addr::LOCALHOST.into()]));
    }
}
