//! `forebay servers`: what is known of the servers behind the process that runs, and the
//! operator's wish for one of them.
//!
//! A wish moves no connection that stands, survives reloads, and ends with the process: what
//! is to hold for longer belongs in the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use super::admin_client::{self, AdminClientError, Which};
use super::output::{say, table};
use super::{ExitStatus, FAILURE, SUCCESS, WRONG_INPUT};
use crate::control::percent::encode;
use crate::control::served::PAGE_MAX;
use crate::control::server_page::{ServersPage, ShownServer};
use crate::upstream::opinions::Wish;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 shown or done; 1 there is no such server; 2 nobody could \
                        be asked.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every server with its state, and why
    List(ListArguments),
    /// Give a server no new connections; those that it has go on
    Drain(OneArguments),
    /// The same, and do not check it either
    Maintain(OneArguments),
    /// Take drain or maintain back: it gets what checks, agent and ejection let it have
    Ready(OneArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    #[command(flatten)]
    which: Which,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct OneArguments {
    #[command(flatten)]
    which: Which,
    /// The pool's name
    pool: String,
    /// The server's name or address, as `list` shows it
    server: String,
}

pub(super) fn servers(arguments: &Arguments) -> ExitStatus {
    let done = match &arguments.action {
        Action::List(arguments) => list(arguments),
        Action::Drain(arguments) => want(arguments, Wish::Drain),
        Action::Maintain(arguments) => want(arguments, Wish::Maintenance),
        Action::Ready(arguments) => want(arguments, Wish::Ready),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        WRONG_INPUT
    })
}

fn list(arguments: &ListArguments) -> Result<ExitStatus, AdminClientError> {
    let servers = ask_for_all(arguments.which.address()?)?;
    if arguments.json {
        match serde_json::to_string_pretty(&servers) {
            Ok(text) => say(text),
            Err(error) => eprintln!("forebay: {error}"),
        }
    } else {
        print_table(&servers);
    }
    Ok(SUCCESS)
}

fn ask_for_all(address: SocketAddr) -> Result<Vec<ShownServer>, AdminClientError> {
    admin_client::all_pages(
        address,
        TIMEOUT,
        |offset| format!("/servers?offset={offset}&limit={PAGE_MAX}"),
        |page: ServersPage| (page.servers, page.next_offset),
    )
}

fn want(arguments: &OneArguments, wish: Wish) -> Result<ExitStatus, AdminClientError> {
    let address = arguments.which.address()?;
    let target = format!(
        "/servers?pool={}&server={}&wish={}",
        encode(&arguments.pool),
        encode(&arguments.server),
        wish.label()
    );
    let (_, body) = admin_client::request(address, "POST", &target, TIMEOUT)?;
    let Ok(shown) = serde_json::from_slice::<ShownServer>(&body) else {
        eprintln!("{address}: {}", String::from_utf8_lossy(&body).trim_end());
        return Ok(FAILURE);
    };
    let ShownServer { pool, server, state, connections, .. } = shown;
    say(format_args!("{pool} {server}: {state}, with {connections} connections"));
    Ok(SUCCESS)
}

fn print_table(servers: &[ShownServer]) {
    let heads = ["POOL", "SERVER", "STATE", "OPERATOR", "WEIGHT", "CONNECTIONS", "LAST FAILURE"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(servers.iter().map(|one| {
        let percent = match one.weight_percent {
            100 => String::new(),
            percent => format!(" at {percent}%"),
        };
        let backup = if one.backup { " backup" } else { "" };
        let most = one.connections_max.map(|most| format!("/{most}")).unwrap_or_default();
        let failure = one.last_check_failure.as_ref().or(one.last_agent_failure.as_ref());
        [
            one.pool.clone(),
            one.server.clone(),
            one.state.clone(),
            one.operator.clone(),
            format!("{}{percent}{backup}", one.weight),
            format!("{}{most}", one.connections),
            failure.cloned().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    table(rows);
}
