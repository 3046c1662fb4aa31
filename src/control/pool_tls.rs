//! From `[pool.tls]` to what engines speak TLS with: the authorities and the certificate
//! are read, the configurations made.
//!
//! May know: settings, certificates. Must not know: engines.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::{Finding, Located, PoolTlsSettings, Settings};
use crate::tls::certificates::LoadedCertificate;
use crate::tls::to_servers::{ToServers, ToServersSettings};
use crate::upstream::Pool;

/// Where systems keep the authorities they trust: Debian and its kin, Red Hat and its kin,
/// Alpine and the BSDs.
pub const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Longer than any bundle: Mozilla's has 250 KiB.
const BUNDLE_BYTES_MAX: u64 = 16 << 20;

/// What the connections to the servers of `pool` negotiate; `certificate` is the one that
/// the settings name.
///
/// # Errors
/// One finding: the authorities cannot be read, or the library does not do what is asked.
pub(super) fn build(
    settings: &Settings,
    tls: &PoolTlsSettings,
    certificate: Option<&Arc<LoadedCertificate>>,
    pool: &Pool,
) -> Result<Arc<ToServers>, Box<Finding>> {
    let roots = if tls.verify { Some(roots(settings, tls)?) } else { None };
    ToServers::new(ToServersSettings {
        library: settings.tls.provider,
        minimum_version: tls.policy.minimum_version,
        cipher_suites: tls.policy.cipher_suites.clone(),
        groups: tls.policy.groups.clone(),
        roots,
        certificate: certificate.map(|certificate| certificate.signing.clone()),
        name: tls.name.clone(),
        hosts: pool.backends.iter().map(|backend| backend.host.clone()).collect(),
    })
    .map(Arc::new)
    .map_err(|error| {
        let place = tls.ca.as_ref().map_or(&tls.place, |ca| &ca.place);
        Box::new(settings.error(place, format!("pool {:?}: {error}", pool.name)))
    })
}

fn roots(
    settings: &Settings,
    tls: &PoolTlsSettings,
) -> Result<Vec<CertificateDer<'static>>, Box<Finding>> {
    let (path, place) = match &tls.ca {
        Some(Located { value, place }) => (value.as_path(), place),
        None => {
            let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
            let path = found.ok_or_else(|| {
                let message = "this machine has no bundle of authorities to trust";
                let help = "name one by ca = \"path\", or install ca-certificates";
                Box::new(settings.error(&tls.place, message).with_help(help))
            })?;
            (path, &tls.place)
        }
    };
    let fail = |what: String| {
        let message = format!("{}: {what}", path.display());
        let help = "write the path of a PEM file of certificates of authorities";
        Box::new(settings.error(place, message).with_help(help))
    };
    // Opening a FIFO would wait for its writer.
    if !path.is_file() {
        return Err(fail("is not a file".into()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(fail(format!("is larger than {} MiB", BUNDLE_BYTES_MAX >> 20)));
    }
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail(error.to_string()))?;
    if certificates.is_empty() {
        return Err(fail("holds no certificate".into()));
    }
    Ok(certificates)
}
