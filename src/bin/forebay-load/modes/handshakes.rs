//! Connections: opened, perhaps used for one request, ended.

use crate::arguments::HandshakesArguments;
use crate::run::{self, Outcome, RunError};
use crate::work::{Purpose, Work};

pub(crate) fn run(arguments: &HandshakesArguments) -> Result<Outcome, RunError> {
    let HandshakesArguments { target, first, load, rate, threads, output, .. } = arguments;
    let request = run::request(
        target,
        first.request.as_deref(),
        first.request_bytes,
        first.response_bytes,
        &first.header,
    );
    let work = Work {
        purpose: Purpose::Connection,
        connections: load.connections,
        request,
        greeting_bytes: first.send_on_connect,
        close: arguments.close,
        timeout: load.timeout,
        rate: rate.rate,
    };
    run::run("handshakes", target, load, threads, output, work, arguments.resumed)
}
