//! Values of the command line that are more than a number or a word.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use rustls::pki_types::ServerName;

/// Reads `4s`, `250ms`, `1.5s`, `2m`; a number alone is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("", 1.0)];
    let seconds = quantity(text, &units).ok_or("write a number and a unit, such as 4s or 250ms")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Reads `1024`, `16k`, `100m`, `1GiB`: bytes, units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let folded = text.to_ascii_lowercase();
    let number = folded.trim_end_matches("ib").trim_end_matches('b');
    let (kilo, mega) = (1_024.0, 1_048_576.0);
    let units = [("k", kilo), ("m", mega), ("g", kilo * mega), ("", 1.0)];
    let bytes = quantity(number, &units).filter(|bytes| *bytes < u64::MAX as f64);
    let bytes = bytes.ok_or("write a number of bytes, such as 1024, 16k or 100m")?;
    if bytes.fract() == 0.0 { Ok(bytes as u64) } else { Err("that is no whole number".into()) }
}

/// Reads operations a second: a positive number, `k` for thousands.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = quantity(text, &[("k", 1e3), ("", 1.0)]).filter(|rate| *rate > 0.0);
    rate.ok_or_else(|| "write operations a second, such as 500 or 10k".into())
}

fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// Reads `1,2-3`: CPUs in the order given, each once.
pub(crate) fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || "write CPU numbers and ranges, such as 0 or 1,2-3".to_owned();
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        // More CPUs than any kernel is built for: rather a mistake.
        if first > last || last >= 8_192 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    let different: BTreeSet<_> = cpus.iter().collect();
    if different.len() < cpus.len() {
        return Err("a CPU is listed twice".into());
    }
    Ok(cpus)
}

/// Where the load goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// As it was written.
    pub(crate) text: String,
    /// The first address that the name has.
    pub(crate) address: SocketAddr,
    /// The host, as a name to ask for.
    pub(crate) name: ServerName<'static>,
}

/// Reads `HOST:PORT`, `192.0.2.1:443`, `[2001:db8::1]:443`.
pub(crate) fn place(text: &str) -> Result<Place, String> {
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT")?;
    port.parse::<u16>().map_err(|_| "write HOST:PORT, the port as a number")?;
    let address = text
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Place { text: text.to_owned(), address, name: server_name(host)? })
}

/// Reads a name that a server may have in its certificate.
pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("{text:?} is no server name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_fractions() {
        for (text, milliseconds) in
            [("4s", 4_000), ("250ms", 250), ("1.5s", 1_500), ("2m", 120_000), ("3", 3_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "4 weeks", "1..2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_counted_in_powers_of_1024() {
        for (text, count) in [
            ("0", 0),
            ("1024", 1_024),
            ("1k", 1_024),
            ("16KiB", 16_384),
            ("1.5m", 1_572_864),
            ("100MB", 100 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        for text in ["", "k", "-1", "1x", "0.1"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_positive() {
        assert_eq!(rate("10k"), Ok(10_000.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("fast").is_err());
    }

    #[test]
    fn cpu_lists_are_numbers_and_ranges_in_order() {
        assert_eq!(cpus("0"), Ok(vec![0]));
        assert_eq!(cpus("1,2-3"), Ok(vec![1, 2, 3]));
        assert_eq!(cpus("5,0-1"), Ok(vec![5, 0, 1]));
        for text in ["", "a", "3-1", "1,,2", "-1", "1-", "0-1,1", "0-99999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places_are_names_and_addresses_of_both_families() {
        let v4 = place("127.0.0.1:443").expect("an address");
        assert_eq!(v4.address, "127.0.0.1:443".parse().unwrap());
        let v6 = place("[::1]:8443").expect("an address");
        assert_eq!(v6.address, "[::1]:8443".parse().unwrap());
        assert!(matches!(v6.name, ServerName::IpAddress(_)));
        assert!(matches!(place("localhost:1").expect("a name").name, ServerName::DnsName(_)));
        for text in ["localhost", "localhost:https", ":1", ""] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
