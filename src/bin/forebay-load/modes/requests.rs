//! Requests and answers on connections that stay.

use crate::arguments::RequestsArguments;
use crate::http::Request;
use crate::run::{self, Outcome, RunError};
use crate::work::{Close, Purpose, Work};

pub(crate) fn run(arguments: &RequestsArguments) -> Result<Outcome, RunError> {
    let RequestsArguments { target, request, load, rate, threads, output } = arguments;
    let default = || Request::new("/", &target.name().to_str(), &request.header, None);
    let request = run::request(
        target,
        request.path.as_deref(),
        request.request_bytes,
        request.response_bytes,
        &request.header,
    )
    .unwrap_or_else(default);
    let work = Work {
        purpose: Purpose::Exchange,
        connections: load.connections,
        request: Some(request),
        greeting_bytes: 0,
        close: Close::Leave,
        timeout: load.timeout,
        rate: rate.rate,
    };
    run::run("requests", target, load, threads, output, work, false)
}
