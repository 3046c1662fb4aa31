//! What a PROXY protocol header costs: once per connection, on the engine's thread.
//!
//! `cargo bench --bench proxy_protocol`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::handshake::SessionFacts;
use forebay::proxy_protocol::{Contents, HEADER_BYTES_MAX, Header, ProxyProtocol, encode};
use forebay::tls::Version;

fn encoding(criterion: &mut Criterion) {
    let session = SessionFacts {
        version: Version::Tls13,
        cipher_suite: 0x1301,
        group: Some(0x11ec),
        resumed: false,
        signature_scheme: Some(0x0403),
        certificate: None,
        alpn: Some((*b"h2").into()),
        server_name: Some("www.shop.example".into()),
    };
    let families = [
        ("ipv4", "192.0.2.33:51324", "198.51.100.7:443"),
        ("ipv6", "[2001:db8:1:2:3:4:5:6]:51324", "[2001:db8::443]:443"),
    ];
    let contents = Contents::default();
    let mut group = criterion.benchmark_group("proxy_protocol");
    for (family, source, destination) in families {
        let address = |text: &str| text.parse().expect("a literal address");
        let header = Header {
            server_name: session.server_name.as_deref(),
            session: Some(&session),
            ..Header::new(address(source), address(destination))
        };
        for (name, version) in [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)] {
            group.bench_function(format!("{name}/{family}"), |bencher| {
                let mut out = [0; HEADER_BYTES_MAX];
                bencher
                    .iter(|| encode(version, &contents, black_box(&header), black_box(&mut out)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encoding);
criterion_main!(benches);
