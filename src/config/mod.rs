//! The configuration file: TOML text in, checked [`Settings`] out.
//!
//! ```text
//!   text ──parse──▶ Settings + findings ──resolve──▶ pools with addresses
//! ```
//!
//! [`parse`] is pure. It reports **every** mistake at once, each with file, line,
//! column, key and what to write instead ([`Finding`]). What is left in [`Settings`]
//! is right by construction as far as text can tell: names refer to pools that exist,
//! numbers are in range, defaults are filled in. Values that can still fail later
//! (addresses to bind, certificates to open) keep their [`Place`], so that those
//! failures are reported in the same form.
//!
//! One file a section: `engine`, `handshake`, `limits`, `timeouts`, `tls`,
//! `session`, `log`, `admin`, `resolver`, `listener`, `route`, `shadow`,
//! `pool`, `proxy_header`. Each holds the section's keys with default, unit and
//! effect, and their reading. A commented file with every key is
//! `docs/examples/forebay.toml`.
//!
//! May know: tls names, routes, pools, endpoints, names of servers. Must not know: engines, sockets, what a
//! certificate looks like inside.
#![forbid(unsafe_code)]

pub mod admin;
mod check;
pub mod client_auth;
pub mod engine;
pub mod finding;
pub mod handshake;
mod item;
pub mod limits;
pub mod listener;
pub mod log;
pub mod pool;
mod pool_check;
mod pool_tls;
pub mod proxy_header;
mod report;
mod resolve;
pub mod resolver;
mod route;
pub mod session;
pub mod shadow;
mod source_address;
mod suggest;
pub mod timeouts;
pub mod tls;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use admin::AdminSettings;
pub use client_auth::{ClientAuthSettings, NamedClientAuth};
pub use engine::EngineSettings;
pub use finding::{Finding, Located, Place, Severity};
pub use handshake::{HandshakeSettings, QueueSettings};
pub use limits::LimitSettings;
pub use listener::ListenerSettings;
pub use log::LogSettings;
pub use pool::{BackendAddress, BackendSettings, BalanceSetting, PoolSettings};
pub use pool_tls::PoolTlsSettings;
pub use proxy_header::ProxyHeaderSettings;
pub use resolve::resolve;
pub use resolver::ResolverSettings;
pub use session::SessionSettings;
pub use shadow::ShadowSettings;
pub use timeouts::TimeoutSettings;
pub use tls::{TlsPolicy, TlsSettings};

use item::Section;
use report::Report;

/// A configuration file, checked, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The file that it was read from.
    pub file: PathBuf,
    /// `[engine]`
    pub engine: EngineSettings,
    /// `[handshake]`
    pub handshake: HandshakeSettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `[timeouts]`
    pub timeouts: TimeoutSettings,
    /// `[tls]`
    pub tls: TlsSettings,
    /// `[session]`
    pub session: SessionSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[admin]`
    pub admin: AdminSettings,
    /// `[resolver]`
    pub resolver: ResolverSettings,
    /// `[[listener]]`, in the order of the file; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// `[[pool]]`, in the order of the file; at least one.
    pub pools: Vec<PoolSettings>,
}

impl Settings {
    /// An error about a value of this file that was found after parsing.
    pub fn error(&self, place: &Place, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, &self.file, place, message)
    }

    /// A warning about a value of this file that was found after parsing.
    pub fn warning(&self, place: &Place, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, &self.file, place, message)
    }
}

/// A larger file is not a configuration; reading stops there.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads and parses the file at `path`. `Settings` are there exactly if no finding is
/// an error. Files that the settings name are not opened: whoever loads them reports
/// them by [`Settings::error`].
pub fn load(path: &Path) -> (Option<Settings>, Vec<Finding>) {
    if_usable(load_in_part(path))
}

/// Like [`load`], but what could be read of the settings is there in spite of errors,
/// with defaults for the rest. Only good for finding more errors.
pub fn load_in_part(path: &Path) -> (Option<Settings>, Vec<Finding>) {
    match read(path) {
        Ok(text) => parse_in_part(&text, path),
        Err(finding) => (None, vec![*finding]),
    }
}

fn if_usable(
    (settings, findings): (Option<Settings>, Vec<Finding>),
) -> (Option<Settings>, Vec<Finding>) {
    let failed = findings.iter().any(Finding::is_error);
    (settings.filter(|_| !failed), findings)
}

fn read(path: &Path) -> Result<String, Box<Finding>> {
    let fail = |place: Place, message: String| {
        Box::new(Finding::new(Severity::Error, path, &place, message))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(Place::default(), format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("is larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(fail(Place::default(), message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        let (line, column) = report::Lines::new(&before).position(before.len());
        fail(Place { line, column, key: String::new() }, "is not UTF-8 text here".into())
    })
}

/// Parses `text`; `path` names it in findings, and relative paths in it are relative
/// to the directory of `path`. `Settings` are there exactly if no finding is an error.
/// Findings are in the order of the text.
pub fn parse(text: &str, path: &Path) -> (Option<Settings>, Vec<Finding>) {
    if_usable(parse_in_part(text, path))
}

fn parse_in_part(text: &str, path: &Path) -> (Option<Settings>, Vec<Finding>) {
    let mut report = Report::new(text, path);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let settings = read_document(&mut report, document.get_ref(), path);
        check::check(&mut report, &settings);
        return (Some(settings), report.into_findings());
    }
    // Where the syntax is broken the rest would be guesswork: only that is reported.
    for error in errors {
        let place = report.place(error.span().unwrap_or(0..0), String::new());
        report.error(&place, format!("not TOML: {}", error.message()), None);
    }
    (None, report.into_findings())
}

/// Every table of the file with its keys: what can be written where.
const TABLES: [(&str, &[&str]); 11] = [
    ("engine", engine::KEYS),
    ("handshake", handshake::KEYS),
    ("limits", limits::KEYS),
    ("timeouts", timeouts::KEYS),
    ("tls", tls::KEYS),
    ("session", session::KEYS),
    ("log", log::KEYS),
    ("admin", admin::KEYS),
    ("resolver", resolver::KEYS),
    ("listener", listener::KEYS),
    ("pool", pool::KEYS),
];

/// The tables that are written `[[name]]`, once for each.
const REPEATED_TABLES: [&str; 2] = ["listener", "pool"];

fn read_document(report: &mut Report<'_>, document: &DeTable<'_>, path: &Path) -> Settings {
    let directory = path.parent().unwrap_or(Path::new(""));
    let root = Section::root(document);
    root.check_keys(report, &TABLES.map(|(name, _)| name));

    let tls = tls::read(report, &root, directory);
    let pools = pool::read_all(report, &root, directory, tls.provider);
    let engine = engine::read(report, &root);
    let listeners = listener::read_all(report, &root, directory, &tls, &pools);
    Settings {
        file: path.to_path_buf(),
        handshake: handshake::read(report, &root, &engine),
        engine,
        limits: limits::read(report, &root),
        timeouts: timeouts::read(report, &root),
        session: session::read(report, &root, directory),
        log: log::read(report, &root),
        admin: admin::read(report, &root),
        resolver: resolver::read(report, &root, directory),
        tls,
        listeners,
        pools,
    }
}

#[cfg(test)]
mod tests;
