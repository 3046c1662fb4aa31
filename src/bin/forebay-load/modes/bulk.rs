//! Large transfers, one after the other on each connection.

use crate::arguments::{BulkArguments, Direction};
use crate::http::Request;
use crate::run::{self, Outcome, RunError};
use crate::work::{Close, Purpose, Work};

pub(crate) fn run(arguments: &BulkArguments) -> Result<Outcome, RunError> {
    let BulkArguments { target, load, threads, output, direction, bytes, path, header } = arguments;
    let host = target.name();
    let host = host.to_str();
    let request = match direction {
        Direction::Down => {
            let path = path.clone().unwrap_or_else(|| format!("/bytes/{bytes}"));
            Request::new(&path, &host, header, None)
        }
        Direction::Up => {
            let path = path.clone().unwrap_or_else(|| "/bytes/0".to_owned());
            Request::new(&path, &host, header, Some(*bytes))
        }
    };
    let work = Work {
        purpose: Purpose::Exchange,
        connections: load.connections,
        request: Some(request),
        greeting_bytes: 0,
        close: Close::Leave,
        timeout: load.timeout,
        rate: None,
    };
    run::run("bulk", target, load, threads, output, work, false)
}
