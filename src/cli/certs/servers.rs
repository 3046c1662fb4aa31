//! Certificates as a server shows them, for each name that it is asked for.

use super::probe::{Prober, Question, Sessions};
use super::report::Report;
use crate::tls::CryptoLibrary;
use crate::tls::certificates::examination::{Examination, Standard, examine};

/// Asks `server` for each of `names`, or for none where there is none, and examines what it
/// shows.
pub(super) fn look(
    server: &str,
    names: &[String],
    prober: &Prober,
    alpn: &[String],
    standard: Standard<'_>,
    report: &mut Report,
) -> Vec<(String, Examination)> {
    let asked: Vec<Option<&str>> = match names {
        [] => vec![host_name(server)],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let mut shown: Vec<(Vec<_>, Examination)> = Vec::new();
    let mut found = Vec::new();
    for name in asked {
        let place = name.map_or_else(|| server.to_owned(), |name| format!("{server} ({name})"));
        let seen =
            match prober.ask(Question { server, name, version: None, alpn }, &Sessions::none()) {
                Ok(seen) => seen,
                Err(error) if error.is_refusal() && name.is_some() => {
                    let advice = "is there a certificate for the name? look at the server's log";
                    report.find(&place, format!("{error}; {advice}"));
                    continue;
                }
                Err(error) => {
                    report.fail(&place, error);
                    continue;
                }
            };
        let known = shown.iter().find(|(chain, _)| *chain == seen.chain);
        let examination = match known {
            Some((_, examination)) => examination.clone(),
            None => {
                let examination = examine(&seen.chain, CryptoLibrary::AwsLc, standard);
                report.examined(&place, &examination);
                shown.push((seen.chain, examination.clone()));
                examination
            }
        };
        if let Some(name) = name
            && !examination.covers(name)
        {
            report.find(&place, not_for(name, &examination));
        }
        found.push((place, examination));
    }
    found
}

/// What is wrong when a server shows, for `name`, a certificate of other names.
pub(super) fn not_for(name: &str, shown: &Examination) -> String {
    let names: Vec<String> = shown.names.iter().take(5).map(ToString::to_string).collect();
    format!(
        "the certificate shown for {name} is for other names ({}): add one that is for it",
        names.join(", ")
    )
}

/// The host of `HOST:PORT` if it is a name.
pub(super) fn host_name(server: &str) -> Option<&str> {
    let (host, _) = server.rsplit_once(':')?;
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    (!is_address && host != "localhost").then_some(host)
}
