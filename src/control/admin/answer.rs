//! Which request gets which answer.

use std::num::ParseIntError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Pages;
use crate::clock::Moment;
use crate::control::lifecycle::Stage;
use crate::control::metrics::Format;
use crate::control::served::PAGE_DEFAULT;
use crate::control::shadow_page::{NAMES_DEFAULT, ShadowPage};
use crate::control::{percent, server_page};
use crate::upstream::opinions::Wish;

/// Scrapes within this time see the same page, so that a flood of them costs little.
const PAGE_FRESH: Duration = Duration::from_millis(100);

const ELSEWHERE: &str = "this can be asked for on the machine of the process only\n";

const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "forebay\n\n\
    /metrics  counters, gauges and histograms for Prometheus\n\
    /health   200 \"ok\" while accepting, else 503: for the load balancer in front\n\
    /ready    the same, under the name that orchestrators ask for\n\
    /certificates?offset=0&limit=100  what is served, as JSON\n\
    /shadow?limit=100  who would fail under the policies that are only tried, as JSON\n\
    /servers?offset=0&limit=100  what is known of the servers behind, as JSON\n\
    POST /servers?pool=NAME&server=NAME&wish=ready|drain|maintenance  from this machine only\n\
    POST /reload  reads configuration and certificates again; from this machine only\n";

/// A response, complete.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) head: Vec<u8>,
    pub(super) body: Arc<[u8]>,
}

/// Makes answers.
pub(super) struct Answers {
    pages: Pages,
    printed: Option<Printed>,
}

/// What a request comes to.
pub(super) enum Answer {
    /// This response.
    Now(Response),
    /// The response when the reload with this number is done.
    AfterReload(u64),
}

/// The page as it was printed last.
struct Printed {
    at: Instant,
    format: Format,
    page: Arc<[u8]>,
}

impl Answers {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, printed: None }
    }

    /// The answer to a well-formed request with this `Accept` header; `local` says whether
    /// it comes from this machine.
    pub(super) fn answer(
        &mut self,
        method: &str,
        target: &str,
        accept: &str,
        local: bool,
    ) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method, path) {
            ("POST", "/reload") => self.reload(local),
            ("POST", "/servers") => Answer::Now(self.wish(query, local)),
            ("GET" | "HEAD", "/reload") => {
                let body = b"POST asks for a reload\n".as_slice().into();
                Answer::Now(response_allowing("405 Method Not Allowed", TEXT, "POST", body))
            }
            ("GET" | "HEAD", _) => Answer::Now(self.page(method, path, query, accept)),
            _ => Answer::Now(refuse("405 Method Not Allowed", "this page is only to be read\n")),
        }
    }

    fn reload(&self, local: bool) -> Answer {
        if !local {
            return Answer::Now(refuse("403 Forbidden", ELSEWHERE));
        }
        match self.pages.reload_requests.ask() {
            Some(number) => Answer::AfterReload(number),
            None => Answer::Now(refuse("409 Conflict", "a reload is under way: try again\n")),
        }
    }

    /// What the operator wants of a server.
    fn wish(&self, query: &str, local: bool) -> Response {
        if !local {
            return refuse("403 Forbidden", ELSEWHERE);
        }
        let text = |key| percent::value(query, key).and_then(percent::decode);
        let wish = text("wish");
        let wish = Wish::ALL.into_iter().find(|one| Some(one.label()) == wish.as_deref());
        let (Some(pool), Some(server), Some(wish)) = (text("pool"), text("server"), wish) else {
            let reason = "pool, server and wish (ready, drain or maintenance) must be there, \
                          percent-encoded\n";
            return refuse("400 Bad Request", reason);
        };
        match server_page::wish(&self.pages.pools.all(), &pool, &server, wish, Moment::now()) {
            Ok(shown) => json("200 OK", &shown),
            Err(error) => refuse("404 Not Found", &format!("{error}\n")),
        }
    }

    /// What became of the reload with this number; `None` while it is not done.
    pub(super) fn reloaded(&self, number: u64) -> Option<Response> {
        let outcome = self.pages.reload_requests.outcome(number)?;
        let status = if outcome.succeeded { "200 OK" } else { "422 Unprocessable Content" };
        Some(json(status, &outcome))
    }

    fn page(&mut self, method: &str, path: &str, query: &str, accept: &str) -> Response {
        let mut response = match path {
            "/" => response("200 OK", TEXT, INDEX.as_bytes().into()),
            "/metrics" => {
                let format = Format::accepted(accept);
                response("200 OK", format.content_type(), self.metrics(format))
            }
            "/certificates" => part(query, |offset, limit| self.pages.served.page(offset, limit)),
            "/servers" => part(query, |offset, limit| {
                server_page::page(&self.pages.pools.all(), offset, limit)
            }),
            "/shadow" => match number(query, "limit", NAMES_DEFAULT) {
                Ok(limit) => {
                    json("200 OK", &ShadowPage::new(&self.pages.served.listeners(), limit))
                }
                Err(_) => refuse("400 Bad Request", "limit is a number\n"),
            },
            "/health" | "/ready" => match self.pages.lifecycle.stage() {
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
        let page: Arc<[u8]> = self.pages.metrics.print(format).into_bytes().into();
        self.printed = Some(Printed { at: now, format, page: Arc::clone(&page) });
        page
    }
}

/// A part of a list, as the query wants it.
fn part<Page: Serialize>(query: &str, page: impl Fn(usize, usize) -> Page) -> Response {
    match (number(query, "offset", 0), number(query, "limit", PAGE_DEFAULT)) {
        (Ok(offset), Ok(limit)) => json("200 OK", &page(offset, limit)),
        _ => refuse("400 Bad Request", "offset and limit are numbers\n"),
    }
}

/// The number that a query has for `key`, or `default`.
fn number(query: &str, key: &str, default: usize) -> Result<usize, ParseIntError> {
    percent::value(query, key).map_or(Ok(default), str::parse)
}

/// An answer that says no, with its reason as text.
pub(super) fn refuse(status: &str, reason: &str) -> Response {
    response(status, TEXT, reason.as_bytes().into())
}

fn json(status: &str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => response(status, "application/json", body.into()),
        Err(error) => refuse("500 Internal Server Error", &format!("{error}\n")),
    }
}

fn response(status: &str, content_type: &str, body: Arc<[u8]>) -> Response {
    response_allowing(status, content_type, "GET, HEAD", body)
}

fn response_allowing(status: &str, content_type: &str, allow: &str, body: Arc<[u8]>) -> Response {
    // RFC 9110 section 15.5.6 wants Allow with a 405; elsewhere it does no harm.
    let head = format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Allow: {allow}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    Response { head: head.into_bytes(), body }
}
