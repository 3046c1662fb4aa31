//! Typed access to the parsed text: every getter reports what is wrong and goes on.
//!
//! A getter returns `None` once it has reported. Callers put the default in its place,
//! which no one sees, since an error anywhere withholds the settings.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::finding::{Located, Place};
use super::report::Report;
use super::values::{self, Unreadable};
use super::{REPEATED_TABLES, TABLES, suggest};

/// A table of the file, or the absence of one.
pub(super) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    place: Place,
}

impl<'t> Section<'t> {
    /// The whole document.
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self { table: Some(table), place: Place::default() }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The table `name`, which may have the keys `keys` and no others.
    pub(super) fn section(&self, report: &mut Report<'_>, name: &str, keys: &[&str]) -> Self {
        self.item(report, name).map_or_else(
            || Self { table: None, place: Place::default() },
            |item| item.section(report, keys),
        )
    }

    /// The tables written `[[name]]`, in order, each with the keys `keys` and no others.
    pub(super) fn sections(&self, report: &mut Report<'_>, name: &str, keys: &[&str]) -> Vec<Self> {
        let Some(item) = self.item(report, name) else { return Vec::new() };
        match item.value {
            DeValue::Array(array) if array.iter().all(|element| element.get_ref().is_table()) => {
                let elements = item.elements(report).unwrap_or_default();
                elements.iter().map(|element| element.section(report, keys)).collect()
            }
            _ => {
                let help = format!("write the table as [[{name}]], once for each {name}");
                item.wrong_type(report, "a list of tables", Some(help));
                Vec::new()
            }
        }
    }

    /// The value of `key`; `None` if it is not there.
    pub(super) fn item(&self, report: &Report<'_>, key: &str) -> Option<Item<'t>> {
        let value = self.table?.get(key)?;
        let place = report.place(value.span(), self.key_path(key));
        Some(Item { value: value.get_ref(), place })
    }

    /// The value of `key` as `read` understands it; `None` if it is absent or wrong.
    pub(super) fn optional<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        read: impl FnOnce(&Item<'t>, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(report, key)?;
        read(&item, report)
    }

    /// The same, with `default` for an absent value.
    pub(super) fn value<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        default: T,
        read: impl FnOnce(&Item<'t>, &mut Report<'_>) -> Option<T>,
    ) -> T {
        self.optional(report, key, read).unwrap_or(default)
    }

    /// The same for a value that must be there; `help` says what to write.
    pub(super) fn required<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        help: &str,
        read: impl FnOnce(&Item<'t>, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.item(report, key).is_none() {
            let place = Place { key: self.key_path(key), ..self.place.clone() };
            report.error(&place, "missing key".into(), Some(help.into()));
        }
        self.optional(report, key, read)
    }

    /// Reports every key that is not in `known`.
    pub(super) fn check_keys(&self, report: &mut Report<'_>, known: &[&str]) {
        for (key, value) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let place = report.place(key.span(), self.key_path(name));
            let (message, help) = if self.place.key.is_empty() {
                let is_table = value.get_ref().is_table() || value.get_ref().is_array();
                (if is_table { "unknown table" } else { "unknown key" }, root_help(name))
            } else {
                ("unknown key", key_help(name, known))
            };
            report.error(&place, message.into(), Some(help));
        }
    }

    fn key_path(&self, key: &str) -> String {
        if self.place.key.is_empty() { key.into() } else { format!("{}.{key}", self.place.key) }
    }
}

/// What to write instead of the top-level `name`.
fn root_help(name: &str) -> String {
    let tables = || suggest::alternatives(&TABLES.map(|(table, _)| header(table)));
    match suggest::nearest(name, TABLES.map(|(table, _)| table)) {
        Some(table) => format!("did you mean {}?", header(table)),
        None => belongs_in(name).unwrap_or_else(|| format!("the tables are {}", tables())),
    }
}

/// What to write instead of the key `name` in a table with the keys `known`.
fn key_help(name: &str, known: &[&str]) -> String {
    if let Some(help) = belongs_in(name) {
        return help;
    }
    match suggest::nearest(name, known.iter().copied()) {
        Some(key) => format!("did you mean `{key}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    }
}

/// Names the tables that do have a key `name`.
fn belongs_in(name: &str) -> Option<String> {
    let tables = TABLES.iter().filter(|(_, keys)| keys.contains(&name));
    let headers: Vec<String> = tables.map(|(table, _)| header(table)).collect();
    (!headers.is_empty()).then(|| format!("it belongs in {}", suggest::alternatives(&headers)))
}

fn header(table: &str) -> String {
    if REPEATED_TABLES.contains(&table) { format!("[[{table}]]") } else { format!("[{table}]") }
}

/// A value of the file.
pub(super) struct Item<'t> {
    value: &'t DeValue<'t>,
    place: Place,
}

impl<'t> Item<'t> {
    /// Where it is written.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// `value` with the place of this item.
    pub(super) fn locate<T>(&self, value: T) -> Located<T> {
        Located { value, place: self.place.clone() }
    }

    /// A table with the keys `keys` and no others.
    pub(super) fn section(&self, report: &mut Report<'_>, keys: &[&str]) -> Section<'t> {
        let table = self.value.as_table();
        let section = Section { table, place: self.place.clone() };
        match table {
            Some(_) => section.check_keys(report, keys),
            None => {
                let help = format!("write a table with the keys {}", keys.join(", "));
                self.wrong_type(report, "a table", Some(help));
            }
        }
        section
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether it is text.
    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// A list of anything.
    pub(super) fn elements(&self, report: &mut Report<'_>) -> Option<Vec<Item<'t>>> {
        let DeValue::Array(array) = self.value else {
            let help = "write the values in square brackets: [a, b]";
            self.wrong_type(report, "a list", Some(help.into()));
            return None;
        };
        let element = |(index, element): (usize, &'t toml::Spanned<DeValue<'t>>)| {
            let key = format!("{}[{index}]", self.place.key);
            Item { value: element.get_ref(), place: report.place(element.span(), key) }
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A list, or one value that stands for a list of one.
    pub(super) fn one_or_more(&self, report: &mut Report<'_>) -> Option<Vec<Item<'t>>> {
        match self.value {
            DeValue::Array(_) => self.elements(report),
            _ => Some(vec![Item { value: self.value, place: self.place.clone() }]),
        }
    }

    /// The text, or the first text of a list; reports nothing.
    pub(super) fn first_text(&self) -> Option<&'t str> {
        match self.value {
            DeValue::Array(array) => array.first()?.get_ref().as_str(),
            value => value.as_str(),
        }
    }

    /// Text.
    pub(super) fn text(&self, report: &mut Report<'_>) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(report, "text in quotes", None);
        }
        text
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.wrong_type(report, "true or false", None);
        }
        boolean
    }

    /// A whole number within `range`.
    pub(super) fn count<N>(&self, report: &mut Report<'_>, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + std::fmt::Display,
    {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type(report, &wanted(), None);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| N::try_from(number).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("{integer} is out of range");
            report.error(&self.place, message, Some(format!("write {}", wanted())));
        }
        number
    }

    /// A whole number within `range`, or `"auto"` for `None`.
    pub(super) fn auto_or_count(
        &self,
        report: &mut Report<'_>,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        self.word_or_count(report, "auto", range)
    }

    /// A whole number within `range`, or `"off"` for `None`.
    pub(super) fn off_or_count(
        &self,
        report: &mut Report<'_>,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        self.word_or_count(report, "off", range)
    }

    /// A whole number within `range`, or `word` for `None`.
    fn word_or_count<N>(
        &self,
        report: &mut Report<'_>,
        word: &str,
        range: RangeInclusive<N>,
    ) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + std::fmt::Display,
    {
        match self.value {
            DeValue::String(text) if *text == word => None,
            DeValue::Integer(_) => self.count(report, range),
            _ => {
                let wanted =
                    format!("{word:?} or a whole number from {} to {}", range.start(), range.end());
                self.wrong_type(report, &wanted, None);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        report: &mut Report<'_>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let wanted = suggest::alternatives(&words);
        let Some(text) = self.value.as_str() else {
            self.wrong_type(report, &wanted, None);
            return None;
        };
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let near = suggest::nearest(text, choices.iter().map(|(word, _)| *word));
            let help = near.map(|word| format!("did you mean {word:?}?"));
            let message = format!("expected {wanted}, found {}", self.description());
            report.error(&self.place, message, help);
        }
        chosen
    }

    /// One of a few words, or a duration within `range` for `of_duration`.
    pub(super) fn choice_or_duration<T: Copy>(
        &self,
        report: &mut Report<'_>,
        choices: &[(&str, T)],
        range: RangeInclusive<Duration>,
        of_duration: impl FnOnce(Duration) -> T,
    ) -> Option<T> {
        let text = self.value.as_str().unwrap_or_default();
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return self.duration(report, range).map(of_duration);
        }
        let [least, most] = [range.start(), range.end()].map(|end| values::duration_text(*end));
        let mut wanted: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        wanted.push(format!("a duration from \"{least}\" to \"{most}\""));
        let near = suggest::nearest(text, choices.iter().map(|(word, _)| *word));
        let help = near.map(|word| format!("did you mean {word:?}?"));
        self.wrong_type(report, &suggest::alternatives(&wanted), help);
        None
    }

    /// A duration with its unit, within `range`.
    pub(super) fn duration(
        &self,
        report: &mut Report<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.quantity(report, "a duration", "\"5s\"", &["ms", "s"])?;
        let duration = self.understood(report, values::duration(text))?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let [least, most] = [range.start(), range.end()].map(|end| values::duration_text(*end));
        self.out_of_range(report, text, &format!("a duration from \"{least}\" to \"{most}\""));
        None
    }

    /// A number of bytes with its unit, within `range`.
    pub(super) fn size(&self, report: &mut Report<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.quantity(report, "a size", "\"16KiB\"", &["B", "KiB"])?;
        let size = self.understood(report, values::size(text))?;
        if range.contains(&size) {
            return Some(size);
        }
        let [least, most] = [range.start(), range.end()].map(|end| values::size_text(*end));
        self.out_of_range(report, text, &format!("a size from \"{least}\" to \"{most}\""));
        None
    }

    /// Text that should be a number with a unit.
    fn quantity(
        &self,
        report: &mut Report<'_>,
        what: &str,
        example: &str,
        units: &[&str],
    ) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            let help = self.value.as_integer().map(|number| {
                let with_units = units.iter().map(|unit| format!("\"{number}{unit}\""));
                let with_units = suggest::alternatives(&with_units.collect::<Vec<_>>());
                format!("write the unit: {with_units}")
            });
            self.wrong_type(report, &format!("{what} such as {example}"), help);
        }
        text
    }

    /// A path, relative to `directory`.
    pub(super) fn path(&self, report: &mut Report<'_>, directory: &Path) -> Option<PathBuf> {
        let text = self.text(report)?;
        self.understood(report, values::path(text, directory))
    }

    /// One to `most` paths, relative to `directory`, none twice.
    pub(super) fn paths(
        &self,
        report: &mut Report<'_>,
        directory: &Path,
        most: usize,
    ) -> Option<Vec<Located<PathBuf>>> {
        let elements = self.one_or_more(report)?;
        if !(1..=most).contains(&elements.len()) {
            let message = format!("{} paths", elements.len());
            report.error(&self.place, message, Some(format!("write 1 to {most}")));
            return None;
        }
        let mut paths: Vec<Located<PathBuf>> = Vec::with_capacity(elements.len());
        for element in elements {
            let Some(path) = element.path(report, directory) else { continue };
            if paths.iter().any(|other| other.value == path) {
                let message = format!("{} is listed twice", path.display());
                report.error(element.place(), message, Some("take one of the two out".into()));
            } else {
                paths.push(element.locate(path));
            }
        }
        Some(paths)
    }

    /// A list of CPU numbers and ranges: `[0, 1, "4-7"]`.
    pub(super) fn cpus(&self, report: &mut Report<'_>) -> Option<Vec<usize>> {
        let mut cpus = Vec::new();
        for element in self.elements(report)? {
            let range = match element.value {
                DeValue::String(text) => {
                    element.understood(report, values::cpu_range(text)).unwrap_or_default()
                }
                _ => element.count(report, 0..=values::CPU_MAX).into_iter().collect(),
            };
            for cpu in range {
                if cpus.contains(&cpu) {
                    let help = "name each CPU once".into();
                    report.error(&element.place, format!("CPU {cpu} is listed twice"), Some(help));
                } else {
                    cpus.push(cpu);
                }
            }
        }
        Some(cpus)
    }

    /// A list of at most `most` addresses and prefixes, none twice.
    pub(super) fn prefixes(&self, report: &mut Report<'_>, most: usize) -> Option<Vec<IpNet>> {
        let elements = self.elements(report)?;
        if let Some(beyond) = elements.get(most) {
            let message = format!("{} prefixes", elements.len());
            report.error(beyond.place(), message, Some(format!("write at most {most}")));
            return None;
        }
        let mut prefixes = Vec::with_capacity(elements.len());
        for element in elements {
            let Some(text) = element.text(report) else { continue };
            let Some(prefix) = element.understood(report, values::prefix(text)) else { continue };
            if prefixes.contains(&prefix) {
                let help = "name each prefix once".into();
                report.error(element.place(), format!("{prefix} is listed twice"), Some(help));
            } else {
                prefixes.push(prefix);
            }
        }
        Some(prefixes)
    }

    /// What `read` made of this item's text, or `None` with the reason reported.
    pub(super) fn understood<T>(
        &self,
        report: &mut Report<'_>,
        result: Result<T, Unreadable>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Unreadable { message, help }) => {
                report.error(&self.place, message, help);
                None
            }
        }
    }

    fn out_of_range(&self, report: &mut Report<'_>, text: &str, wanted: &str) {
        let message = format!("\"{text}\" is out of range");
        report.error(&self.place, message, Some(format!("write {wanted}")));
    }

    fn wrong_type(&self, report: &mut Report<'_>, wanted: &str, help: Option<String>) {
        let message = format!("expected {wanted}, found {}", self.description());
        report.error(&self.place, message, help);
    }

    /// The value in words, short enough for a line.
    fn description(&self) -> String {
        const CHARACTERS_MAX: usize = 40;
        match self.value {
            DeValue::String(text) if text.chars().count() > CHARACTERS_MAX => {
                let start: String = text.chars().take(CHARACTERS_MAX).collect();
                format!("{:?}", format!("{start}…"))
            }
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(_) => "a date or time".into(),
            DeValue::Array(_) => "a list".into(),
            DeValue::Table(_) => "a table".into(),
        }
    }
}
