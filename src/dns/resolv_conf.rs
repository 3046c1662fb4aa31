//! `/etc/resolv.conf`, as resolv.conf(5) has it: whom to ask, and how.
//!
//! Of the options, `ndots`, `timeout`, `attempts` and `use-vc` count. The others are about
//! glibc's own ways and change nothing here; neither does anything else that is not known.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The port of nameservers.
pub const PORT: u16 = 53;

/// Nameservers that are asked, as glibc has it (MAXNS).
pub const NAMESERVERS_MAX: usize = 3;

/// Domains that a short name is looked for in; glibc had this bound until 2.26.
pub const SEARCH_MAX: usize = 6;

/// What the file says, or what holds without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver`; the machine itself if there is none.
    pub nameservers: Vec<SocketAddr>,
    /// `search` or `domain`, whichever comes last.
    pub search: Vec<String>,
    /// `options ndots:N`: a name with so many dots is asked for as it is first.
    pub ndots: usize,
    /// `options timeout:N`: how long an answer is waited for.
    pub timeout: Duration,
    /// `options attempts:N`: how often every nameserver is asked.
    pub attempts: u32,
    /// `options use-vc`: ask over TCP only.
    pub tcp_only: bool,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            nameservers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp_only: false,
        }
    }
}

impl ResolvConf {
    /// Reads what can be understood of `text`.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self { nameservers: Vec::new(), ..Self::default() };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(nameserver);
                    if conf.nameservers.len() < NAMESERVERS_MAX {
                        conf.nameservers.extend(address);
                    }
                }
                Some("search" | "domain") => {
                    let domains = words.filter(|domain| *domain != ".");
                    conf.search = domains.take(SEARCH_MAX).map(str::to_ascii_lowercase).collect();
                }
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        if conf.nameservers.is_empty() {
            conf.nameservers = Self::default().nameservers;
        }
        conf
    }

    /// The bounds are those of glibc.
    fn option(&mut self, option: &str) {
        let number = |name: &str, least: u32, most: u32| {
            let number = option.strip_prefix(name)?.parse::<u32>().ok()?;
            Some(number.clamp(least, most))
        };
        if let Some(ndots) = number("ndots:", 0, 15) {
            self.ndots = ndots as usize;
        } else if let Some(seconds) = number("timeout:", 1, 30) {
            self.timeout = Duration::from_secs(seconds.into());
        } else if let Some(attempts) = number("attempts:", 1, 5) {
            self.attempts = attempts;
        } else if option == "use-vc" {
            self.tcp_only = true;
        }
    }
}

/// An address, for IPv6 perhaps with the number of a zone.
fn nameserver(text: &str) -> Option<SocketAddr> {
    let plain = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
    let with_zone = || format!("[{text}]:{PORT}").parse::<SocketAddrV6>().map(SocketAddr::V6);
    plain.or_else(|_| with_zone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(conf: &ResolvConf) -> Vec<String> {
        conf.nameservers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_not_said_is_as_without_the_file() {
        assert_eq!(ResolvConf::parse("# nothing\n;\n\nsortlist 10.0.0.0\n"), ResolvConf::default());
    }

    #[test]
    fn nameservers_domains_and_options_are_understood() {
        let conf = ResolvConf::parse(
            "nameserver 10.0.0.1\nnameserver\t2001:db8::1\nnameserver fe80::1%2\n\
             nameserver 10.0.0.4\nsearch a.Example b.example\n\
             options ndots:3 timeout:2 attempts:9 rotate use-vc\n",
        );
        assert_eq!(addresses(&conf), ["10.0.0.1:53", "[2001:db8::1]:53", "[fe80::1%2]:53"]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!((conf.ndots, conf.timeout), (3, Duration::from_secs(2)));
        assert_eq!((conf.attempts, conf.tcp_only), (5, true), "as many as glibc takes");
    }

    #[test]
    fn the_last_of_domain_and_search_counts() {
        assert_eq!(ResolvConf::parse("search a b\ndomain c\n").search, ["c"]);
        assert!(ResolvConf::parse("domain c\nsearch .\n").search.is_empty());
    }

    #[test]
    fn what_is_no_address_is_no_nameserver() {
        let conf = ResolvConf::parse("nameserver\nnameserver dns.example\nnameserver 10.0.0.1\n");
        assert_eq!(addresses(&conf), ["10.0.0.1:53"]);
    }
}
