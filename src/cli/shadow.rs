//! `forebay shadow`: who would be refused under the policies that the running process only
//! tries, by name and cause.

use std::time::Duration;

use super::admin_client::{self, AdminClientError, Which};
use super::output::{say, table};
use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::control::shadow_page::{
    ByCause, Clients, NAMES_DEFAULT, NAMES_MAX, ShadowOfListener, ShadowOfName, ShadowPage,
};

/// How long the page may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nobody would fail; 1 somebody would; 2 nothing could be shown."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The most names shown of a listener, those with the most clients that would fail first
    #[arg(long, value_name = "NAMES", default_value_t = NAMES_DEFAULT as u64,
          value_parser = clap::value_parser!(u64).range(0..=NAMES_MAX as u64))]
    limit: u64,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn shadow(arguments: &Arguments) -> ExitStatus {
    let target = format!("/shadow?limit={}", arguments.limit);
    let asked = arguments.which.address().and_then(|address| {
        let (_, body) = admin_client::request(address, "GET", &target, TIMEOUT)?;
        let page = serde_json::from_slice::<ShadowPage>(&body)
            .map_err(|_| AdminClientError::NotForebay(address))?;
        Ok((page, body))
    });
    let (page, body) = match asked {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{error}");
            return WRONG_INPUT;
        }
    };
    if page.listeners.is_empty() {
        eprintln!("no listener has a [listener.shadow]: nothing is tried");
        return WRONG_INPUT;
    }
    if arguments.json {
        say(String::from_utf8_lossy(&body));
    } else {
        page.listeners.iter().for_each(print);
    }
    match page.listeners.iter().all(|listener| listener.all.would_fail == 0) {
        true => SUCCESS,
        false => FAILURE,
    }
}

fn print(listener: &ShadowOfListener) {
    let ShadowOfListener { listener, all, no_name, other, names, names_total, .. } = listener;
    say(format_args!("listener {listener}"));
    let head = ["NAME", "CLIENTS", "WOULD FAIL", "SHARE", "CAUSES"].map(str::to_owned);
    let named = names.iter().map(row_of_name);
    let sums = [("(no name)", no_name), ("(other names)", other), ("(all)", all)];
    let sums = sums.map(|(what, clients)| row(what, clients, "", share(clients)));
    table(std::iter::once(head).chain(named).chain(sums).collect());
    if names.iter().any(|name| name.is_partial) {
        say("≥: there were more names than have room, and of these some clients are among others");
    }
    if names.len() < *names_total {
        say(format_args!("{} more names; --limit shows more", names_total - names.len()));
    }
}

fn row_of_name(name: &ShadowOfName) -> [String; 5] {
    match name.is_partial {
        true => row(&name.name, &name.clients, "≥", "-".to_owned()),
        false => row(&name.name, &name.clients, "", share(&name.clients)),
    }
}

fn row(what: &str, clients: &Clients, at_least: &str, share: String) -> [String; 5] {
    let count = |count: u64| format!("{at_least}{count}");
    let causes = causes(&clients.by_cause);
    [what.to_owned(), count(clients.clients), count(clients.would_fail), share, causes]
}

/// Of the clients those that would fail, in percent.
fn share(clients: &Clients) -> String {
    match clients.clients {
        0 => "-".to_owned(),
        all => format!("{:.2}%", clients.would_fail as f64 * 100.0 / all as f64),
    }
}

fn causes(causes: &ByCause) -> String {
    let ByCause { version, cipher_suite, certificate, signature_scheme, group } = *causes;
    let texts: Vec<_> = [
        ("version", version),
        ("cipher_suite", cipher_suite),
        ("certificate", certificate),
        ("signature_scheme", signature_scheme),
        ("group", group),
    ]
    .into_iter()
    .filter(|(_, clients)| *clients > 0)
    .map(|(cause, clients)| format!("{cause} {clients}"))
    .collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}
