//! What several test files share. Each file compiles its own copy and uses a part.
#![allow(dead_code, unreachable_pub)]

pub mod certificates;
pub mod confinement;
pub mod forebay;
pub mod haproxy;
pub mod nginx;
pub mod openssl;
pub mod ports;
pub mod program;
pub mod proxy_header;
pub mod seen;
pub mod tls_client;
