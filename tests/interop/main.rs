//! forebay between clients and servers that others wrote: curl, OpenSSL, GnuTLS, rustls
//! and Chromium on one side, HAProxy, nginx and Varnish on the other. What the servers log of a
//! client must be the truth about it.
//!
//! | file | what must work |
//! |---|---|
//! | `backends` | HAProxy, nginx and Varnish learn who the client is, whatever carries it |
//! | `balancer_in_front` | HAProxy in front speaks for clients, which are known behind |
//! | `negotiation` | every version, suite, group and application protocol |
//! | `resumption` | tickets, and where they must not be taken |
//! | `certificates` | which one a client is shown |
//! | `refusals` | the alert that a client gets which we cannot serve |
//! | `proxy_header` | what the header says, and what it leaves with |
//! | `proxy_values` | everything else that a pool can ask the header to say |
//! | `fingerprints` | clients are counted by their JA4 fingerprints |
//! | `browser` | a page with all that a browser does by itself |
//! | `site` | configurations |
//!
//! What is about TLS runs with both providers: see [`with_each_provider`].

#[path = "../support/mod.rs"]
mod support;

mod backends;
mod balancer_in_front;
mod browser;
mod certificates;
mod fingerprints;
mod negotiation;
mod proxy_header;
mod proxy_values;
mod refusals;
mod resumption;
mod site;

/// Makes one test for each provider of each function, which takes the provider's name.
macro_rules! with_each_provider {
    ($($test:ident),+ $(,)?) => {
        mod aws_lc_rs {
            $(#[test] fn $test() { super::$test("aws-lc-rs"); })+
        }
        mod ring {
            $(#[test] fn $test() { super::$test("ring"); })+
        }
    };
}
use with_each_provider;
