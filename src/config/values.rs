//! Values that are written as text: durations, sizes, addresses, prefixes, CPU ranges.
//!
//! Pure functions; an error is what to tell whoever wrote the value.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::dns::Wanted;
use crate::dns::resolv_conf::PORT as DNS_PORT;
use crate::endpoint::Endpoint;

use super::pool::BackendAddress;

/// Why a text is not the value that was wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// What is wrong with it.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: Option<String>,
}

fn unreadable<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable { message: message.into(), help: Some(help.into()) })
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads `5s`, `250ms`, `2m`, `1h`: a whole number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, Unreadable> {
    let nanoseconds = quantity(text, &DURATION_UNITS, "duration", "5s")?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Writes a duration as it would be written in the file.
pub(super) fn duration_text(duration: Duration) -> String {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    quantity_text(nanoseconds, &DURATION_UNITS, "0ms")
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `64KiB`, `16MiB`: a whole number and a unit. The result is in bytes.
pub(super) fn size(text: &str) -> Result<u64, Unreadable> {
    quantity(text, &SIZE_UNITS, "size", "16KiB")
}

/// Writes a number of bytes as it would be written in the file.
pub(super) fn size_text(bytes: u64) -> String {
    quantity_text(bytes, &SIZE_UNITS, "0B")
}

fn quantity(
    text: &str,
    units: &[(&str, u64)],
    what: &str,
    example: &str,
) -> Result<u64, Unreadable> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    if number.is_empty() {
        return unreadable(
            format!("{text:?} is not a {what}"),
            format!("write a whole number and a unit, such as \"{example}\""),
        );
    }
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    if unit.is_empty() {
        return unreadable(
            format!("{text:?} has no unit"),
            format!("write one of {} after the number, such as \"{example}\"", names.join(", ")),
        );
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return unreadable(
            format!("{text:?} has an unknown unit"),
            format!("the units are {}, as in \"{example}\"", names.join(", ")),
        );
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)) {
        Some(value) => Ok(value),
        None => unreadable(
            format!("{text:?} is too large"),
            format!("write a smaller {what}, such as \"{example}\""),
        ),
    }
}

fn quantity_text(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let fitting = units.iter().rev().find(|(_, factor)| value.is_multiple_of(*factor));
    match (value, fitting) {
        (0, _) => zero.into(),
        (_, Some((name, factor))) => format!("{}{name}", value / factor),
        (_, None) => format!("{value}ns"),
    }
}

/// Reads bytes: UTF-8, in which `\r`, `\n`, `\t`, `\0`, `\\` and `\x7f` stand for one byte
/// each.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('\\');
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    while let Some(piece) = pieces.next() {
        let (byte, rest) = match piece.split_at_checked(1) {
            Some(("r", rest)) => (b'\r', rest),
            Some(("n", rest)) => (b'\n', rest),
            Some(("t", rest)) => (b'\t', rest),
            Some(("0", rest)) => (0, rest),
            Some(("x", rest)) if let Some((byte, rest)) = hexadecimal_byte(rest) => (byte, rest),
            // Two in a row: what follows the second one is as it is written.
            None if let Some(rest) = pieces.next() => (b'\\', rest),
            _ => {
                return unreadable(
                    format!("{text:?} has a \\ that stands for nothing"),
                    "write \\r, \\n, \\t, \\0, \\x7f, or \\\\ for itself, in '' or with each \\ \
                     doubled in \"\"",
                );
            }
        };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Ok(bytes)
}

fn hexadecimal_byte(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    Some((u8::from_str_radix(digits, 16).ok().filter(|_| is_number)?, rest))
}

/// Reads an address to listen on: `0.0.0.0:443`, `[::1]:443`, `[::]:443` (IPv6 and
/// IPv4), `:443` (the same as `[::]:443`).
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Unreadable> {
    let parsed = match text.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Some(Err(_)) | None => text.parse().ok(),
    };
    match parsed {
        Some(address) if address.port() == 0 => unreadable(
            format!("{text:?} has port 0"),
            "every engine listens on the same port: write it, such as \":443\"",
        ),
        Some(address) => Ok(address),
        None => unreadable(
            format!("{text:?} is not an address to listen on"),
            match text.parse::<std::net::IpAddr>() {
                Ok(ip) => format!("write the port too: \"{}\"", SocketAddr::new(ip, 443)),
                Err(_) => "write an IP address and a port, such as \"192.0.2.1:443\" or \
                           \"[2001:db8::1]:443\", or \":443\" for every address"
                    .into(),
            },
        ),
    }
}

/// Reads a prefix of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
pub(super) fn prefix(text: &str) -> Result<IpNet, Unreadable> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        return unreadable(
            format!("{text:?} is not a prefix"),
            "write an address and the number of its bits that count, such as \"10.0.0.0/8\" or \
             \"2001:db8::/32\"",
        );
    };
    let truncated = prefix.trunc();
    if truncated != prefix {
        return unreadable(
            format!("{text:?} has bits beyond its prefix"),
            format!("write \"{truncated}\", or \"{}\" for the one address", prefix.addr()),
        );
    }
    Ok(as_clients_have_it(prefix))
}

/// Clients that come to a dual-stack listener over IPv4 count as IPv4.
fn as_clients_have_it(prefix: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(mapped) = prefix else { return prefix };
    let address = mapped.addr().to_ipv4_mapped();
    let bits = mapped.prefix_len().checked_sub(MAPPED_BITS);
    match (address, bits) {
        (Some(address), Some(bits)) => Ipv4Net::new(address, bits).map_or(prefix, IpNet::V4),
        _ => prefix,
    }
}

/// Reads a nameserver: `192.0.2.53`, `2001:db8::53`, or one of them with a port.
pub(super) fn nameserver(text: &str) -> Result<SocketAddr, Unreadable> {
    let without_port = || text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT));
    match text.parse::<SocketAddr>().or_else(|_| without_port()) {
        Ok(address) if address.port() > 0 => Ok(address),
        _ => unreadable(
            format!("{text:?} is not a nameserver"),
            "write an IP address, such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"",
        ),
    }
}

/// Reads where a backend is: `10.0.0.1:8080`, `[2001:db8::1]:8080`,
/// `host.example:8080`, `srv:_app._tcp.example`, `unix:/run/app.sock` (relative to
/// `directory`).
pub(super) fn backend_address(text: &str, directory: &Path) -> Result<BackendAddress, Unreadable> {
    const FORMS: &str = "write \"10.0.0.1:8080\", \"[2001:db8::1]:8080\", \"host.example:8080\", \
                         \"srv:_app._tcp.example\" or \"unix:/run/app.sock\"";
    if let Some(name) = text.strip_prefix("srv:") {
        return if is_host_name(name) {
            let wanted = Wanted::Service(name.to_ascii_lowercase());
            Ok(BackendAddress::Named { wanted, port: None })
        } else {
            unreadable(
                format!("{text:?} is not the name of a service"),
                "write \"srv:_app._tcp.example\", without a port: the SRV records have it",
            )
        };
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, directory)
            .map(|path| BackendAddress::Endpoint(Endpoint::Unix(path)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => unreadable(format!("{text:?} has port 0"), "write the port of the server"),
            _ => Ok(BackendAddress::Endpoint(Endpoint::Inet(address))),
        };
    }
    if text.starts_with('/') {
        return unreadable(
            format!("{text:?} is not a backend"),
            format!("for a UNIX socket write \"unix:{text}\""),
        );
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return unreadable(
            format!("{text:?} is not a backend: it is reached over plain TCP, not {scheme}"),
            format!("write \"{rest}\" with its port"),
        );
    }
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return unreadable(
            format!("{text:?} has no port"),
            format!("write \"{}\"", SocketAddr::new(ip, 8080)),
        );
    }
    match text.rsplit_once(':') {
        None if is_host_name(text) => {
            unreadable(format!("{text:?} has no port"), format!("write \"{text}:8080\""))
        }
        Some((host, port)) if is_host_name(host) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(BackendAddress::Named {
                wanted: Wanted::Host(host.to_ascii_lowercase()),
                port: Some(port),
            }),
            _ => unreadable(
                format!("{text:?} has no valid port"),
                format!("write a port from 1 to 65535: \"{host}:8080\""),
            ),
        },
        _ => unreadable(format!("{text:?} is not a backend"), FORMS),
    }
}

fn unix_path(path: &str, directory: &Path) -> Result<PathBuf, Unreadable> {
    if path.starts_with('@') {
        return unreadable(
            format!("\"unix:{path}\" is an abstract socket, which is not supported"),
            "write the path of a socket file, such as \"unix:/run/app.sock\"",
        );
    }
    let path = self::path(path, directory)?;
    let bytes = path.as_os_str().len();
    if bytes > Endpoint::UNIX_PATH_BYTES_MAX {
        return unreadable(
            format!("the path {} has {bytes} bytes", path.display()),
            format!(
                "the kernel takes at most {} bytes: move the socket to a shorter path",
                Endpoint::UNIX_PATH_BYTES_MAX
            ),
        );
    }
    Ok(path)
}

/// Reads a path, relative to `directory`.
pub(super) fn path(text: &str, directory: &Path) -> Result<PathBuf, Unreadable> {
    if text.is_empty() || text.contains('\0') {
        return unreadable(format!("{text:?} is not a path"), "write the path of a file");
    }
    Ok(directory.join(text))
}

/// RFC 1123 section 2.1, with the underscore that container networks use in names.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // An address with a mistake in it must not go to the resolver.
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && !numeric && name.split('.').all(label)
}

/// The largest CPU number that the kernel can be configured for (`NR_CPUS`), and so
/// the bound of a CPU list.
pub(super) const CPU_MAX: usize = 8191;

/// Reads `3` or `4-7`.
pub(super) fn cpu_range(text: &str) -> Result<Vec<usize>, Unreadable> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last && last <= CPU_MAX => Ok((first..=last).collect()),
        _ => unreadable(
            format!("{text:?} is not a range of CPUs"),
            format!("write CPU numbers from 0 to {CPU_MAX}, such as 3 or \"4-7\""),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_take_every_unit() {
        let milliseconds = |text| duration(text).unwrap().as_millis();
        assert_eq!(duration("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(milliseconds("250ms"), 250);
        assert_eq!(milliseconds("5s"), 5_000);
        assert_eq!(milliseconds("2m"), 120_000);
        assert_eq!(milliseconds("1h"), 3_600_000);
        assert_eq!(milliseconds("1d"), 86_400_000);
        assert_eq!(milliseconds("0s"), 0);
        assert_eq!(milliseconds("5 s"), 5_000);
    }

    #[test]
    fn sizes_take_every_unit() {
        let sizes = ["5B", "64KiB", "16MiB", "1GiB"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [5, 65_536, 16_777_216, 1_073_741_824]);
    }

    #[test]
    fn a_port_alone_means_every_address_of_both_families() {
        assert_eq!(listen_address(":443"), Ok("[::]:443".parse().unwrap()));
    }

    #[test]
    fn backends_are_told_apart_by_form() {
        let read = |text| backend_address(text, Path::new("/etc/forebay")).unwrap();
        let inet = |text: &str| BackendAddress::Endpoint(Endpoint::Inet(text.parse().unwrap()));
        let unix = |text: &str| BackendAddress::Endpoint(Endpoint::Unix(text.into()));
        let host = |host: &str, port| BackendAddress::Named {
            wanted: Wanted::Host(host.into()),
            port: Some(port),
        };
        assert_eq!(read("10.0.0.1:8080"), inet("10.0.0.1:8080"));
        assert_eq!(read("[2001:db8::1]:80"), inet("[2001:db8::1]:80"));
        assert_eq!(read("unix:/run/app.sock"), unix("/run/app.sock"));
        assert_eq!(read("unix:app.sock"), unix("/etc/forebay/app.sock"));
        assert_eq!(read("host.example:8080"), host("host.example", 8080));
        assert_eq!(read("app_1:80"), host("app_1", 80));
    }

    #[test]
    fn an_address_with_a_mistake_in_it_is_not_taken_for_a_host_name() {
        for text in ["10.0.0.256:80", "10.0.0:80", "::1:80", "[::1:80", "-a.b:80", "a..b:80"] {
            assert!(backend_address(text, Path::new("")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_an_address_with_its_bits_or_one_address() {
        let text = |text| prefix(text).unwrap().to_string();
        assert_eq!(text("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(text("2001:db8::/32"), "2001:db8::/32");
        assert_eq!(text("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(text("::1"), "::1/128");
        assert_eq!(text("::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(text("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(text("0.0.0.0/0"), "0.0.0.0/0");
        for wrong in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "host.example", "/8", ""] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        let help = prefix("10.1.2.3/8").unwrap_err().help.unwrap();
        assert_eq!(help, "write \"10.0.0.0/8\", or \"10.1.2.3\" for the one address");
    }

    #[test]
    fn cpu_ranges_include_both_ends() {
        assert_eq!(cpu_range("4-7"), Ok(vec![4, 5, 6, 7]));
        assert_eq!(cpu_range("3"), Ok(vec![3]));
        for text in ["7-4", "a", "1-99999999999", "-1", ""] {
            assert!(cpu_range(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_it_is_written(microseconds in 0_u64..1 << 50) {
            let value = Duration::from_micros(microseconds);
            prop_assert_eq!(duration(&duration_text(value)), Ok(value));
        }

        #[test]
        fn a_size_reads_back_as_it_is_written(bytes: u64) {
            prop_assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), number in "[0-9]{0,25}(us|ms|s|KiB|GiB|:|-)?.*") {
            for text in [text, number] {
                let _ = duration(&text);
                let _ = size(&text);
                let _ = listen_address(&text);
                let _ = backend_address(&text, Path::new("/"));
                let _ = backend_address(&format!("unix:{text}"), Path::new("/"));
                let _ = cpu_range(&text);
                let _ = prefix(&text);
                let _ = path(&text, Path::new("/"));
            }
        }
    }
}
