//! What certificate compression saves and costs: `cargo bench --bench
//! certificate_compression` prints a table.
//!
//! The chains are made by openssl with what public authorities put into theirs: a leaf with
//! two names, two signed certificate timestamps and the addresses of the authority, and one
//! intermediate certificate signed by an RSA-4096 root.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forebay::tls::certificate_compression::Compression;
use forebay::tls::certificates::{self, LoadedCertificate, Passphrases};
use forebay::tls::policy::{Policy, PolicySettings};
use forebay::tls::{CryptoLibrary, tickets, unverified};
use rustls::client::Resumption;
use rustls::compress::{
    BROTLI_COMPRESSOR, BROTLI_DECOMPRESSOR, CertCompressor, CertDecompressor, CompressionLevel,
    ZLIB_COMPRESSOR, ZLIB_DECOMPRESSOR,
};
use rustls::{ClientConfig, ClientConnection, ServerConnection};

const NAME: &str = "www.shop.example";
const LIBRARY: CryptoLibrary = CryptoLibrary::AwsLc;

const INTERMEDIATE: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\n\
    keyUsage=critical,digitalSignature,keyCertSign,cRLSign\n\
    extendedKeyUsage=clientAuth,serverAuth\nsubjectKeyIdentifier=hash\n\
    authorityKeyIdentifier=keyid\n\
    authorityInfoAccess=caIssuers;URI:http://root.authority.example/\n\
    certificatePolicies=2.23.140.1.2.1\n\
    crlDistributionPoints=URI:http://crl.authority.example/root.crl\n";

const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
    extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\n\
    authorityKeyIdentifier=keyid\n\
    authorityInfoAccess=OCSP;URI:http://ocsp.authority.example,caIssuers;URI:http://ca.authority.example/\n\
    subjectAltName=DNS:www.shop.example,DNS:shop.example\n\
    certificatePolicies=2.23.140.1.2.1\n\
    crlDistributionPoints=URI:http://crl.authority.example/84.crl\n";

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs it too: once is enough there.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 200 } else { 1 };
    let directory = tempfile::tempdir()?;
    println!(
        "| chain | sent as | certificates, bytes | whole flight, bytes | first time, µs | from the cache, µs |"
    );
    println!("|---|---|---|---|---|---|");
    for (chain, leaf, intermediate) in [
        ("ECDSA P-256, intermediate P-384", "ec:P-256", "ec:P-384"),
        ("RSA 2048, intermediate RSA 2048", "rsa:2048", "rsa:2048"),
    ] {
        let path = make_chain(directory.path(), leaf, intermediate)?;
        let loaded = load(&path)?;
        let chain_bytes = message(&loaded)?;
        let plain = flight_bytes(&loaded, None)?;
        println!("| {chain} | as it is | {} | {plain} | – | – |", chain_bytes.len());
        for (name, compression, fresh, decompressor) in [
            ("zlib", Compression::Zlib, ZLIB_COMPRESSOR, ZLIB_DECOMPRESSOR),
            ("brotli", Compression::Brotli, BROTLI_COMPRESSOR, BROTLI_DECOMPRESSOR),
        ] {
            let flight = flight_bytes(&loaded, Some((compression, decompressor)))?;
            let size = compress(fresh, &chain_bytes, CompressionLevel::Interactive).len();
            let first =
                time(rounds, || compress(fresh, &chain_bytes, CompressionLevel::Interactive));
            let cached = compression.compressor();
            compress(cached, &chain_bytes, CompressionLevel::Interactive);
            let again =
                time(rounds, || compress(cached, &chain_bytes, CompressionLevel::Interactive));
            println!("| | {name} | {size} | {flight} | {first:.1} | {again:.2} |");
            let slow = compress(fresh, &chain_bytes, CompressionLevel::Amortized).len();
            let slow_time =
                time(rounds, || compress(fresh, &chain_bytes, CompressionLevel::Amortized));
            println!("| | {name}, slowest level (not used) | {slow} | – | {slow_time:.1} | – |");
        }
    }
    Ok(())
}

fn compress(
    compressor: &'static dyn CertCompressor,
    input: &[u8],
    level: CompressionLevel,
) -> Vec<u8> {
    compressor.compress(input.to_vec(), level).expect("memory takes all")
}

/// The median time of a round, in microseconds.
fn time<T>(rounds: usize, work: impl Fn() -> T) -> f64 {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            black_box(work());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// What is compressed: the entries of the certificate message (RFC 8446 section 4.4.2).
fn message(loaded: &LoadedCertificate) -> anyhow::Result<Vec<u8>> {
    let certified = loaded.signing.certified().ok_or_else(|| anyhow::anyhow!("no key"))?;
    let mut bytes = vec![0, 0, 0, 0];
    for certificate in &certified.cert {
        bytes.extend([0, (certificate.len() >> 8) as u8, certificate.len() as u8]);
        bytes.extend_from_slice(certificate);
        bytes.extend([0, 0]);
    }
    Ok(bytes)
}

/// Bytes of the server's first flight to a client that offers this.
fn flight_bytes(
    loaded: &LoadedCertificate,
    offer: Option<(Compression, &'static dyn CertDecompressor)>,
) -> anyhow::Result<usize> {
    let tickets = tickets::per_process(LIBRARY)?;
    let mut settings = PolicySettings::new(LIBRARY, vec![loaded.clone()], tickets);
    settings.compression = offer.iter().map(|(compression, _)| *compression).collect();
    let policy = Policy::new(settings)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(unverified::any_certificate(&provider))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.cert_decompressors = offer.iter().map(|(_, decompressor)| *decompressor).collect();
    let mut client = ClientConnection::new(Arc::new(config), NAME.try_into()?)?;
    let mut server = ServerConnection::new(policy.tls13())?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    server.read_tls(&mut bytes.as_slice())?;
    server.process_new_packets()?;
    let mut flight = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut flight)?;
    }
    client.read_tls(&mut flight.as_slice())?;
    client.process_new_packets()?;
    Ok(flight.len())
}

fn load(path: &Path) -> anyhow::Result<LoadedCertificate> {
    let paths = [path.to_owned()];
    let (mut loaded, findings) =
        certificates::load(&paths, LIBRARY, &Passphrases::default(), SystemTime::now());
    loaded.pop().ok_or_else(|| anyhow::anyhow!("{findings:?}"))
}

fn make_chain(at: &Path, leaf: &str, intermediate: &str) -> anyhow::Result<PathBuf> {
    // Two timestamps: a list of 2 × 119 bytes that nobody can compress.
    let timestamps: String = (0..240_u32)
        .map(|place| format!("{:02X}", place.wrapping_mul(2_654_435_761).to_be_bytes()[0]))
        .collect();
    let timestamps = format!("1.3.6.1.4.1.11129.2.4.2=DER:0481F0{timestamps}\n");
    fs::write(at.join("intermediate.ext"), INTERMEDIATE)?;
    fs::write(at.join("leaf.ext"), format!("{LEAF}{timestamps}"))?;
    openssl(
        at,
        "req -x509 -newkey rsa:4096 -nodes -keyout root.key -out root.crt -subj /C=US/O=Authority_Research_Group/CN=Authority_Root_X1",
    )?;
    for (name, key, issuer, subject) in [
        ("intermediate", intermediate, "root", "/C=US/O=Authority/CN=A7"),
        ("leaf", leaf, "intermediate", "/CN=www.shop.example"),
    ] {
        let key = match key.split_once(':') {
            Some(("ec", curve)) => format!("ec -pkeyopt ec_paramgen_curve:{curve}"),
            _ => key.to_owned(),
        };
        openssl(
            at,
            &format!(
                "req -new -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
            ),
        )?;
        openssl(
            at,
            &format!(
                "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -days 90 \
                 -extfile {name}.ext -out {name}.crt"
            ),
        )?;
    }
    let path = at.join("chain.pem");
    let mut pem = Vec::new();
    for file in ["leaf.crt", "intermediate.crt", "leaf.key"] {
        pem.extend(fs::read(at.join(file))?);
    }
    fs::write(&path, pem)?;
    Ok(path)
}

fn openssl(directory: &Path, arguments: &str) -> anyhow::Result<()> {
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "openssl {arguments}: {errors}");
    Ok(())
}
