//! The system's files about names, read again when they have changed.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::secret_files::Stamp;
use crate::clock::Moment;
use crate::config::ResolverSettings;
use crate::dns::hosts::Hosts;
use crate::dns::lookup::Manner;
use crate::dns::resolv_conf::ResolvConf;

/// More of a file is not read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How long the files are believed to be as they were, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

/// What the files say, in the light of the settings.
#[derive(Debug)]
pub(super) struct Files {
    settings: Arc<ResolverSettings>,
    resolv_conf: Watched,
    hosts_file: Watched,
    looked_at: Moment,
    manner: Arc<Manner>,
    hosts: Hosts,
}

impl Files {
    /// Reads the files that `settings` name.
    pub(super) fn read(settings: Arc<ResolverSettings>, now: Moment) -> Self {
        let mut resolv_conf = Watched::new(&settings.resolv_conf);
        let mut hosts_file = Watched::new(&settings.hosts);
        let conf = resolv_conf.changed().unwrap_or_default();
        let hosts = hosts_file.changed().unwrap_or_default();
        Self {
            manner: Arc::new(manner(&settings, &conf)),
            hosts: Hosts::parse(&hosts),
            settings,
            resolv_conf,
            hosts_file,
            looked_at: now,
        }
    }

    /// Reads again what has changed, and everything if the settings have.
    pub(super) fn renew(&mut self, settings: &Arc<ResolverSettings>, now: Moment) {
        if !Arc::ptr_eq(&self.settings, settings) {
            *self = Self::read(Arc::clone(settings), now);
            return;
        }
        if (now.since(self.looked_at).as_millis() as u64) < LOOK_EVERY_MS {
            return;
        }
        self.looked_at = now;
        if let Some(conf) = self.resolv_conf.changed() {
            self.manner = Arc::new(manner(settings, &conf));
        }
        if let Some(hosts) = self.hosts_file.changed() {
            self.hosts = Hosts::parse(&hosts);
        }
    }

    /// How names are to be asked for.
    pub(super) fn manner(&self) -> &Arc<Manner> {
        &self.manner
    }

    /// Names that need not be asked for.
    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }
}

/// The settings go before the file.
fn manner(settings: &ResolverSettings, resolv_conf: &str) -> Manner {
    let mut conf = ResolvConf::parse(resolv_conf);
    if let Some(nameservers) = &settings.nameservers {
        conf.nameservers.clone_from(nameservers);
    }
    conf.timeout = settings.timeout.unwrap_or(conf.timeout);
    conf.attempts = settings.attempts.unwrap_or(conf.attempts);
    Manner { conf, families: settings.families }
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
    /// Whether it could be read when it was last looked at, or was not there.
    usable: bool,
}

impl Watched {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, usable: true }
    }

    /// What is in the file, if that may have changed. A file that is gone is an empty one; one
    /// that cannot be read stays what it was.
    fn changed(&mut self) -> Option<String> {
        let stamp = Stamp::of(&self.path);
        if stamp.is_none() && self.seen.take().is_some() {
            return Some(String::new());
        }
        if stamp == self.seen && self.usable {
            return None;
        }
        match read(&self.path) {
            Ok(text) => {
                self.seen = stamp;
                self.usable = true;
                Some(text)
            }
            Err(error) => {
                let usable = error.kind() == io::ErrorKind::NotFound;
                if self.usable && !usable {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "cannot be read: what it said before holds");
                }
                self.usable = usable;
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // A named pipe without a writer would wait for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_changed_file_counts_and_a_file_that_is_gone_is_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        let [resolv_conf, hosts] = ["resolv.conf", "hosts"].map(|name| directory.path().join(name));
        fs::write(&resolv_conf, "nameserver 10.0.0.1\noptions timeout:3\n").expect("written");
        let settings = ResolverSettings {
            attempts: Some(4),
            resolv_conf: resolv_conf.clone(),
            hosts: hosts.clone(),
            ..ResolverSettings::default()
        };
        let settings = Arc::new(settings);
        let start = Moment::from_nanoseconds(0);
        let mut files = Files::read(Arc::clone(&settings), start);
        let conf = &files.manner().conf;
        assert_eq!(conf.nameservers[0].to_string(), "10.0.0.1:53");
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(3), 4));
        assert_eq!(files.hosts().addresses("app"), None);

        fs::write(&hosts, "10.0.0.7 app\n").expect("written");
        fs::remove_file(&resolv_conf).expect("removed");
        files.renew(&settings, start);
        assert_eq!(files.hosts().addresses("app"), None, "it was looked at just now");
        files.renew(&settings, start.after(Duration::from_secs(1)));
        assert!(files.hosts().addresses("app").is_some());
        assert_eq!(files.manner().conf.nameservers[0].to_string(), "127.0.0.1:53");
    }
}
