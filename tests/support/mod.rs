//! What several test files share. Each file compiles its own copy and uses a part.
#![allow(dead_code, unreachable_pub)]

pub mod backend;
pub mod bystander;
pub mod certificates;
pub mod configuration;
pub mod echo;
pub mod exchange;
pub mod exchange_client;
pub mod exchange_server;
pub mod forebay;
pub mod load;
pub mod payload;
pub mod peers;
pub mod ports;
pub mod process;
pub mod random;
pub mod scene;
pub mod sockets;
pub mod tls_client;
pub mod unconnectable;
