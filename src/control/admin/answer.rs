//! Which request gets which answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::lifecycle::{Lifecycle, Stage};
use crate::control::metrics::{Format, Page};

/// Scrapes within this time see the same page, so that a flood of them costs little.
const PAGE_FRESH: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "forebay\n\n\
    /metrics  counters, gauges and histograms for Prometheus\n\
    /health   200 \"ok\" while accepting, else 503: for the load balancer in front\n\
    /ready    the same, under the name that orchestrators ask for\n";

/// A response, complete.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) head: Vec<u8>,
    pub(super) body: Arc<[u8]>,
}

/// Makes answers.
pub(super) struct Answers {
    lifecycle: Arc<Lifecycle>,
    page: Page,
    printed: Option<Printed>,
}

/// The page as it was printed last.
struct Printed {
    at: Instant,
    format: Format,
    page: Arc<[u8]>,
}

impl Answers {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, page: Page) -> Self {
        Self { lifecycle, page, printed: None }
    }

    /// The answer to a well-formed request with this `Accept` header.
    pub(super) fn answer(&mut self, method: &str, target: &str, accept: &str) -> Response {
        if method != "GET" && method != "HEAD" {
            return refuse("405 Method Not Allowed", "only GET and HEAD are served here\n");
        }
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let mut response = match path {
            "/" => response("200 OK", TEXT, INDEX.as_bytes().into()),
            "/metrics" => {
                let format = Format::accepted(accept);
                response("200 OK", format.content_type(), self.metrics(format))
            }
            "/health" | "/ready" => match self.lifecycle.stage() {
                Stage::Accepting => response("200 OK", TEXT, b"ok\n".as_slice().into()),
                Stage::Starting => refuse("503 Service Unavailable", "starting\n"),
                Stage::Draining => refuse("503 Service Unavailable", "draining\n"),
            },
            _ => refuse("404 Not Found", "no such page; / lists what there is\n"),
        };
        if method == "HEAD" {
            response.body = Arc::new([]);
        }
        response
    }

    fn metrics(&mut self, format: Format) -> Arc<[u8]> {
        let now = Instant::now();
        if let Some(printed) = &self.printed
            && printed.format == format
            && now.duration_since(printed.at) < PAGE_FRESH
        {
            return Arc::clone(&printed.page);
        }
        let page: Arc<[u8]> = self.page.print(format).into_bytes().into();
        self.printed = Some(Printed { at: now, format, page: Arc::clone(&page) });
        page
    }
}

/// An answer that says no, with its reason as text.
pub(super) fn refuse(status: &str, reason: &str) -> Response {
    response(status, TEXT, reason.as_bytes().into())
}

fn response(status: &str, content_type: &str, body: Arc<[u8]>) -> Response {
    // RFC 9110 section 15.5.6 wants Allow with a 405; elsewhere it does no harm.
    let head = format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Allow: GET, HEAD\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    Response { head: head.into_bytes(), body }
}
