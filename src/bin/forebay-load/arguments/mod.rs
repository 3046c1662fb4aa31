//! The command line: what is asked for, checked as far as it can be without the network.

pub(crate) mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay::tls::names::{CipherSuite, Group};
use rustls::pki_types::ServerName;

use crate::backend::Listen;
use crate::plot;
use crate::tls::{TlsChoice, TlsVersion};
use crate::work::Close;
use values::Place;

/// Makes load on a TLS server and measures it.
#[derive(Debug, Parser)]
#[command(
    name = "forebay-load",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 operations failed (see --allow-failures) or the run could \
                  not be made; 2 wrong command line.\n\
                  Ctrl-C ends a run early; what was measured until then is reported."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open connections, shake hands, end them
    Handshakes(HandshakesArguments),
    /// HTTP/1.1 requests on connections that stay
    Requests(RequestsArguments),
    /// Large transfers, as many as fit
    Bulk(BulkArguments),
    /// Connections on which nothing happens
    Idle(IdleArguments),
    /// Paced requests on connections that stand, first alone, then while a storm of new
    /// connections comes
    Mixed(MixedArguments),
    /// No load: the plaintext HTTP/1.1 server behind the thing under test
    Backend(BackendArguments),
    /// No load: one picture of what several runs kept by --histogram
    Plot(PlotArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HandshakesArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// Resume sessions: TLS 1.3 with a new ticket each time, TLS 1.2 with the latest
    #[arg(long, conflicts_with = "plain")]
    pub(crate) resumed: bool,
    /// How each connection ends
    #[arg(long, value_enum, default_value_t)]
    pub(crate) close: Close,
    #[command(flatten)]
    pub(crate) first: FirstArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) rate: RateArguments,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RequestsArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) request: RequestArguments,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) rate: RateArguments,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BulkArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// Which way the bytes go
    #[arg(long, value_enum, default_value_t)]
    pub(crate) direction: Direction,
    /// Bytes of each transfer: a GET of /bytes/N, or a POST of N bytes to /bytes/0
    #[arg(long, value_name = "N", default_value = "100m", value_parser = values::bytes)]
    pub(crate) bytes: u64,
    /// Ask for this path instead (down: its size is what the server makes it)
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// A further header, `Name: value`; may be repeated
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub(crate) header: Vec<String>,
    #[command(flatten)]
    pub(crate) load: LoadArguments,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the server
    #[default]
    Down,
    /// To the server
    Up,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// Connections to hold; as many as the descriptor limit allows if that is less
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// The server's memory is what further connections add to that with the first N
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) baseline: usize,
    /// Wait for so long before the server's memory is read
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub(crate) settle: Duration,
    /// Hold them for so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub(crate) duration: Duration,
    /// A connection that takes longer to be established, or to answer, has failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) first: FirstArguments,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MixedArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) request: RequestArguments,
    /// Established connections
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Requests a second on them together
    #[arg(long, value_name = "R", default_value = "1000", value_parser = values::rate)]
    pub(crate) rate: f64,
    /// New connections a second in the storm
    #[arg(long, value_name = "R", value_parser = values::rate)]
    pub(crate) storm_rate: f64,
    /// A new client gives up after this time, counted from when it was due
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub(crate) patience: Duration,
    /// New clients at once [default: as many as come while one is patient, if the
    /// descriptor limit allows]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) storm_connections: Option<usize>,
    /// Each new client asks for this path; without it shaking hands is enough
    #[arg(long, value_name = "PATH")]
    pub(crate) storm_request: Option<String>,
    /// How a new client that is done leaves
    #[arg(long, value_enum, default_value_t)]
    pub(crate) storm_close: Close,
    /// Measure each phase for so long
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub(crate) duration: Duration,
    /// Run each phase for so long before measuring it
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub(crate) warm_up: Duration,
    /// A request that takes longer, counted from when it was due, has failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BackendArguments {
    /// Where to listen: ADDRESS:PORT (port 0: any that is free), or unix:PATH
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Listen,
    /// Take a PROXY protocol header, version 1 or 2, where a connection begins with one
    #[arg(long)]
    pub(crate) proxy_protocol: bool,
    #[command(flatten)]
    pub(crate) threads: ThreadsArguments,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArguments {
    /// The picture to write: a name that ends in .svg or .png
    #[arg(value_name = "PICTURE", value_parser = picture)]
    pub(crate) picture: PathBuf,
    /// What each curve is called, and the file that holds it
    #[arg(value_name = "NAME=FILE", required = true, value_parser = named_file)]
    pub(crate) curves: Vec<NamedFile>,
    /// What is written above
    #[arg(long, default_value = "latency")]
    pub(crate) title: String,
}

/// A file and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct TargetArguments {
    /// Where to connect
    #[arg(value_name = "HOST:PORT", value_parser = values::place)]
    pub(crate) place: Place,
    /// TCP without TLS
    #[arg(long)]
    pub(crate) plain: bool,
    /// Offer this version only [default: both]
    #[arg(long, value_enum, value_name = "VERSION", conflicts_with = "plain")]
    pub(crate) tls: Option<TlsVersion>,
    /// Offer only these cipher suites, by IANA's or OpenSSL's names [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "plain")]
    pub(crate) suite: Vec<CipherSuite>,
    /// Offer only these key-exchange groups, the first with a key share [default:
    /// x25519,secp256r1,secp384r1]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "plain")]
    pub(crate) group: Vec<Group>,
    /// Ask for this server name [default: HOST; none if that is an address]
    #[arg(long, value_name = "NAME", value_parser = values::server_name)]
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Offer these application protocols
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "plain")]
    pub(crate) alpn: Vec<String>,
    /// Check the certificate; without this any is taken, and its signature is not looked at
    #[arg(long, conflicts_with = "plain")]
    pub(crate) verify: bool,
    /// Trust the certificates in this PEM file [default: the system's]
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) ca: Option<PathBuf>,
    /// Connect from this address; may be repeated, they take turns
    #[arg(long, value_name = "IP")]
    pub(crate) source: Vec<IpAddr>,
}

impl TargetArguments {
    pub(crate) fn name(&self) -> ServerName<'static> {
        self.server_name.clone().unwrap_or_else(|| self.place.name.clone())
    }

    /// What to negotiate; `None` for TCP without TLS.
    pub(crate) fn tls(&self) -> Option<TlsChoice> {
        (!self.plain).then(|| TlsChoice {
            version: self.tls,
            suites: self.suite.clone(),
            groups: self.group.clone(),
            alpn: self.alpn.clone(),
            verify: self.verify,
            authorities: self.ca.clone(),
        })
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArguments {
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// How long to measure [default: 10s, without --operations]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) duration: Option<Duration>,
    /// Measure so many operations and stop
    #[arg(long, value_name = "N")]
    pub(crate) operations: Option<u64>,
    /// Run for so long before measuring
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub(crate) warm_up: Duration,
    /// An operation that takes longer, counted from when it was due, has failed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct RateArguments {
    /// Begin so many operations a second, however the server fares (open loop); latencies
    /// count from when each was due [default: as many as --connections allow]
    #[arg(long, value_name = "R", value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct ThreadsArguments {
    /// Threads that make the load [default: one for each of --cpus, else 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Keep the threads on these CPUs, one each in turn, such as 1,2-3
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub(crate) cpus: Option<CpuList>,
}

/// CPUs, in order.
#[derive(Clone, Debug)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

/// What a connection begins with.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct FirstArguments {
    /// One request on each connection: GET this path, or POST to it with --request-bytes
    #[arg(long, visible_alias = "path", value_name = "PATH")]
    pub(crate) request: Option<String>,
    /// The request carries so many bytes
    #[arg(long, value_name = "N", value_parser = values::bytes)]
    pub(crate) request_bytes: Option<u64>,
    /// One request for /bytes/N on each connection
    #[arg(long, value_name = "N", value_parser = values::bytes, conflicts_with = "request")]
    pub(crate) response_bytes: Option<u64>,
    /// A further header, `Name: value`; may be repeated
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub(crate) header: Vec<String>,
    /// Send so many bytes on each connection that no answer is waited for, at most 128k
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::bytes)]
    pub(crate) send_on_connect: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct RequestArguments {
    /// Ask for this path [default: /bytes/N, N from --response-bytes]
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// POST so many bytes instead of asking by GET
    #[arg(long, value_name = "N", value_parser = values::bytes)]
    pub(crate) request_bytes: Option<u64>,
    /// Ask for /bytes/N, which `forebay-load backend` answers with N bytes
    #[arg(long, value_name = "N", value_parser = values::bytes, conflicts_with = "path")]
    pub(crate) response_bytes: Option<u64>,
    /// A further header, `Name: value`; may be repeated
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub(crate) header: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// Report CPU time and memory of this process and its descendants; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Vec<u32>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the latencies: a name that ends in .svg or .png
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub(crate) plot: Option<PathBuf>,
    /// Keep the latencies as HdrHistogram's tools do (.hgrm), in microseconds
    #[arg(long, value_name = "FILE")]
    pub(crate) histogram: Option<PathBuf>,
    /// No progress line
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Exit with 0 although so many operations failed: a number, or a share such as 0.1%
    #[arg(long, value_name = "N", default_value = "0", value_parser = allowance)]
    pub(crate) allow_failures: Allowance,
}

/// How many failures are not held against the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Allowance {
    Count(u64),
    Share(f64),
}

impl Allowance {
    pub(crate) fn allows(self, failed: u64, offered: u64) -> bool {
        match self {
            Self::Count(count) => failed <= count,
            Self::Share(share) => failed as f64 <= share * offered as f64,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "write a whole number".to_owned())?;
    if number == 0 { Err("at least 1".into()) } else { Ok(number) }
}

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let cpus = values::cpus(text)?;
    let allowed = forebay::control::cpus::allowed();
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => Err(format!(
            "CPU {cpu} is not one that the process may use ({})",
            forebay::control::cpus::list(&allowed)
        )),
        None => Ok(CpuList(cpus)),
    }
}

fn picture(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    plot::check_name(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

fn named_file(text: &str) -> Result<NamedFile, String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok(NamedFile { name: name.to_owned(), file: file.into() })
        }
        _ => Err("write NAME=FILE, such as haproxy=haproxy.hgrm".into()),
    }
}

fn header(text: &str) -> Result<String, String> {
    let printable = !text.bytes().any(|byte| byte.is_ascii_control());
    match text.split_once(':') {
        Some((name, _)) if printable && !name.is_empty() && !name.contains(' ') => {
            Ok(text.to_owned())
        }
        _ => Err("write it as it goes to the server, such as 'Accept: text/html'".into()),
    }
}

fn allowance(text: &str) -> Result<Allowance, String> {
    let wrong = "write a number, or a share such as 0.1%";
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => {
                Ok(Allowance::Share(percent / 100.0))
            }
            _ => Err(wrong.into()),
        },
        None => text.parse().map(Allowance::Count).map_err(|_| wrong.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from([&["forebay-load"], arguments].concat())
    }

    #[test]
    fn the_commands_parse() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
        for arguments in [
            "handshakes 127.0.0.1:443",
            "handshakes localhost:443 --resumed --connections 64 --duration 4s --tls 1.2",
            "handshakes 127.0.0.1:443 --plain --rate 500 --close reset",
            "handshakes 127.0.0.1:443 --request /1k --suite TLS_AES_128_GCM_SHA256 --group x25519",
            "handshakes 127.0.0.1:443 --send-on-connect 1k --verify --ca some.pem",
            "requests 127.0.0.1:443 --path /1k --operations 1000 --server-pid 1 --server-pid 2",
            "requests 127.0.0.1:443 --request-bytes 1k --response-bytes 16k --json --quiet",
            "bulk 127.0.0.1:443 --direction up --bytes 1g --allow-failures 0.1%",
            "idle 127.0.0.1:443 --connections 20000 --duration 1m --request /",
            "mixed 127.0.0.1:443 --storm-rate 10k --patience 1s --rate 500 --path /1k",
            "backend --listen 127.0.0.1:0 --proxy-protocol --threads 2",
            "backend --listen unix:/tmp/backend.sock",
            "plot all.svg forebay=a.hgrm haproxy=b.hgrm --title storm",
            "requests 127.0.0.1:443 --plot a.png --histogram a.hgrm",
        ] {
            let words: Vec<_> = arguments.split(' ').collect();
            assert!(parse(&words).is_ok(), "{arguments}: {}", parse(&words).unwrap_err());
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for arguments in [
            "handshakes",
            "handshakes 127.0.0.1",
            "handshakes 127.0.0.1:443 --plain --tls 1.3",
            "handshakes 127.0.0.1:443 --plain --resumed",
            "handshakes 127.0.0.1:443 --ca some.pem",
            "handshakes 127.0.0.1:443 --connections 0",
            "requests 127.0.0.1:443 --path / --response-bytes 5",
            "requests 127.0.0.1:443 --rate 0",
            "bulk 127.0.0.1:443 --rate 5",
            "mixed 127.0.0.1:443",
            "backend --listen 8080",
            "plot all.pdf a=a.hgrm",
            "plot all.svg a.hgrm",
            "requests 127.0.0.1:443 --plot a.gif",
            "bulk 127.0.0.1:443 --group p-257",
        ] {
            let words: Vec<_> = arguments.split(' ').collect();
            assert_eq!(parse(&words).expect_err(arguments).exit_code(), 2, "{arguments}");
        }
    }

    #[test]
    fn failures_are_allowed_by_number_or_share() {
        assert!(Allowance::Count(3).allows(3, 10) && !Allowance::Count(3).allows(4, 10));
        let share = allowance("10%").expect("a share");
        assert!(share.allows(1, 10) && !share.allows(2, 10));
        assert!(allowance("-1").is_err() && allowance("200%").is_err());
    }

    #[test]
    fn headers_cannot_smuggle_others() {
        assert!(header("Accept: */*").is_ok());
        for text in ["Accept", ": x", "A b: c", "A: b\r\nC: d"] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }
}
