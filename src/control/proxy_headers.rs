//! What the machine adds to the PROXY protocol headers of pools: the keys that sign them, its
//! name, that of its network namespace, and a bit of chance.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::secret_files::{self, SecretFilesError};
use crate::config::{Finding, Settings};
use crate::proxy_protocol::Contents;
use crate::proxy_protocol::authentication::{
    AuthenticationKey, KEY_FILE_BYTES_MAX, KeyFileError, parse_keys,
};
use crate::proxy_protocol::contents::Value;
use crate::upstream::Pool;

/// Where ip-netns(8) keeps the names of network namespaces.
const NAMESPACES: &str = "/run/netns";
const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// Why keys of PROXY protocol headers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyKeysError {
    /// The file cannot be read, or others can read it too.
    #[error(transparent)]
    File(#[from] SecretFilesError),
    /// It holds something else.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KeyFileError,
    },
}

/// The keys of the file at `path`, at least one, that to sign with first.
///
/// # Errors
/// See [`ProxyKeysError`].
pub fn read_keys(path: &Path) -> Result<Vec<AuthenticationKey>, ProxyKeysError> {
    let content = secret_files::read_content(path, KEY_FILE_BYTES_MAX)?;
    parse_keys(&content)
        .map_err(|source| ProxyKeysError::Content { path: path.display().to_string(), source })
}

/// The files of keys that `settings` name.
pub fn key_files(settings: &Settings) -> impl Iterator<Item = &PathBuf> {
    settings.pools.iter().filter_map(|pool| Some(&pool.header.key_file.as_ref()?.value))
}

/// Completes the headers of `pools`, which are those of `settings`, in order.
pub fn complete(settings: &Settings, pools: &mut [Pool], findings: &mut Vec<Finding>) {
    for (pool, of_pool) in pools.iter_mut().zip(&settings.pools) {
        let wanted = &of_pool.header;
        if let Some(file) = &wanted.key_file {
            match read_keys(&file.value) {
                Ok(keys) => pool.header.key = keys.into_iter().next().map(Arc::new),
                Err(error) => findings.push(settings.error(&file.place, error.to_string())),
            }
        }
        let values = &wanted.values;
        if values.value.contains(Value::Netns) {
            pool.header.network_namespace = network_namespace().unwrap_or_default();
            if pool.header.network_namespace.is_empty() {
                let message = format!(
                    "\"netns\": this process is in no network namespace that {NAMESPACES} names"
                );
                let help = "the value is left out: take it off the list, or start forebay by \
                            `ip netns exec`";
                findings.push(settings.warning(&values.place, message).with_help(help));
            }
        }
        pool.header.node = node();
        pool.header.unique_ids = chance();
    }
}

/// The name of this machine.
fn node() -> Box<str> {
    rustix::system::uname().nodename().to_string_lossy().into()
}

/// As `ip netns identify` finds it: the namespaces' files are the same.
fn network_namespace() -> Option<Box<str>> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new(OWN_NAMESPACE))?;
    let named = fs::read_dir(NAMESPACES).ok()?.flatten();
    let found = named.into_iter().find(|entry| identity(&entry.path()) == Some(own))?;
    let name = found.file_name().into_string().ok()?;
    (name.len() <= Contents::NAME_BYTES_MAX).then(|| name.into())
}

/// Names of connections must differ from those of every other process, no more.
fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
