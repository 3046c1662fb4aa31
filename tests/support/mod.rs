//! What several test files share. Each file compiles its own copy and uses a part.
#![allow(dead_code, unreachable_pub)]

pub mod authority;
pub mod backend;
pub mod bystander;
pub mod certificates;
pub mod clients;
pub mod configuration;
pub mod confinement;
pub mod curl;
pub mod dnsmasq;
pub mod echo;
pub mod exchange;
pub mod exchange_client;
pub mod exchange_server;
pub mod forebay;
pub mod haproxy;
pub mod load;
pub mod network;
pub mod nginx;
pub mod node;
pub mod ocsp;
pub mod openssl;
pub mod payload;
pub mod peers;
pub mod ports;
pub mod process;
pub mod program;
pub mod proxy_header;
pub mod random;
pub mod scene;
pub mod seen;
pub mod site;
pub mod sockets;
pub mod tls_client;
pub mod unconnectable;
pub mod varnish;
