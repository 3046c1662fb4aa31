//! The control thread: start, reload, drain, the admin address, metrics and the log.
//!
//! May know: every other module but the command line. Must not: carry data. No
//! data-path socket is ever touched here after it was bound.

pub mod admin;
pub mod build;
pub mod capacity;
pub mod certificate_index;
pub mod client_gates;
pub mod client_rechecks;
pub mod cpus;
pub mod ejections;
pub mod event_log;
pub mod key_passphrases;
pub mod lifecycle;
pub mod limits;
pub mod listeners;
pub mod logging;
pub mod metrics;
pub mod percent;
mod poll_timeout;
pub mod pool_tls;
pub mod pools;
pub mod prepare;
pub mod prober;
pub mod proxy_headers;
pub mod rate_limit;
pub mod reload;
pub mod reload_requests;
pub mod replace_file;
pub mod resolver;
pub mod secret_files;
pub mod served;
pub mod server_page;
pub mod server_watch;
pub mod servers;
pub mod session_keys;
pub mod shadow_page;
mod shadow_policies;
pub mod shed_log;
pub mod signals;
mod source_addresses;
pub mod start;
pub mod supervise;
pub mod switches;
pub mod watch;
