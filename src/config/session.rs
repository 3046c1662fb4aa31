//! `[session]`: session tickets, and the secrets that their keys come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::Located;
use super::item::Section;
use super::report::Report;

/// `[session]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// `secrets = "path" | [paths]`, default absent, which is a random secret that ends
    /// with the process: files of ticket secrets, the same on every node of a tier, so
    /// that each resumes the others' sessions. Made by `forebay ticket-secret`; key files
    /// of HAProxy and nginx are read too. Relative to the configuration file. A change of
    /// a file is noticed within a second or two.
    pub secrets: Vec<Located<PathBuf>>,
    /// `epoch = "1s" to "7d"`, default `"12h"`: how long one key seals. The same on every
    /// node. Clocks may differ by as much.
    pub epoch: Duration,
    /// `overlap = "1s" to "7d"`, default and at most `epoch`: how long a key opens after
    /// its epoch, and how long a ticket lives.
    pub overlap: Duration,
}

impl SessionSettings {
    /// The most files of secrets.
    pub const FILES_MAX: usize = 8;
}

impl Default for SessionSettings {
    fn default() -> Self {
        let epoch = Duration::from_secs(12 * 3_600);
        Self { secrets: Vec::new(), epoch, overlap: epoch }
    }
}

pub(super) const KEYS: &[&str] = &["secrets", "epoch", "overlap"];

pub(super) fn read(
    report: &mut Report<'_>,
    root: &Section<'_>,
    directory: &Path,
) -> SessionSettings {
    // RFC 8446 section 4.6.1: no ticket lives longer than seven days.
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(7 * 86_400);
    let section = &root.section(report, "session", KEYS);
    let default = SessionSettings::default();
    let whole_seconds = |report: &mut Report<'_>, key, default, most| {
        section.value(report, key, default, |item, report| {
            let duration = item.duration(report, LEAST..=most)?;
            if duration.subsec_nanos() > 0 {
                let message = "is not a whole number of seconds".to_owned();
                report.error(
                    item.place(),
                    message,
                    Some("write it in \"s\", \"m\" or \"h\"".into()),
                );
                return None;
            }
            Some(duration)
        })
    };
    let epoch = whole_seconds(report, "epoch", default.epoch, MOST);
    let overlap = whole_seconds(report, "overlap", epoch, epoch);
    let secrets = section.value(report, "secrets", Vec::new(), |item, report| {
        let elements = item.one_or_more(report)?;
        if !(1..=SessionSettings::FILES_MAX).contains(&elements.len()) {
            let message = format!("{} files are listed", elements.len());
            let help = format!(
                "write 1 to {}, or take the key out for a secret of this process alone",
                SessionSettings::FILES_MAX
            );
            report.error(item.place(), message, Some(help));
            return None;
        }
        let path = |element: &super::item::Item<'_>, report: &mut Report<'_>| {
            element.path(report, directory).map(|path| element.locate(path))
        };
        Some(elements.iter().filter_map(|element| path(element, report)).collect())
    });
    SessionSettings { secrets, epoch, overlap }
}
