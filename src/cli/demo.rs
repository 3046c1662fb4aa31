//! demo
mod page;
mod proxy_header;
mod responder;
