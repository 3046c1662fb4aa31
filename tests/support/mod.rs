//! What several test files share. Each file compiles its own copy and uses a part.
#![allow(dead_code, unreachable_pub)]

pub mod certificates;
pub mod echo;
pub mod forebay;
pub mod ports;
pub mod tls_client;
