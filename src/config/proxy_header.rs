//! What the PROXY protocol headers of a `[[pool]]` say: keys that begin with `proxy_`.

use std::path::{Path, PathBuf};

use crate::proxy_protocol::contents::{
    Contents, CustomValue, TypeSet, Value, ValueSet, can_be_passed_on, is_custom,
};
use crate::proxy_protocol::template::{Template, TemplateError};
use crate::proxy_protocol::{ProxyProtocol, TYPE_NETNS, TYPE_UNIQUE_ID};

use super::finding::Located;
use super::item::{Item, Section};
use super::report::Report;
use super::suggest;

/// Keys of `[[pool]]` that have a meaning with `proxy_protocol = "v2"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeaderSettings {
    /// `proxy_tlvs = ["name", ...]`, default `["alpn", "authority", "ssl", "ssl_cn",
    /// "ssl_cipher"]`: values of the specification that headers have. See [`Value`] for
    /// each; one that begins with `ssl_` brings `ssl`. `ssl_client_cert` makes headers
    /// large, which then leave in a send of their own.
    pub values: Located<ValueSet>,
    /// `proxy_align = N`, 1 to 64, default 1: headers are filled up to a multiple of so many
    /// bytes.
    pub alignment: Option<u8>,
    /// `proxy_custom_tlvs = [{ type = N, value = "text" }, ...]`, default empty, at most 8:
    /// values of your own, of types 0xE0 to 0xF7 but 0xE7, with placeholders
    /// `{ja4}`, `{session}`, `{group}`, `{handshake_seconds}`, `{node}`.
    pub custom: Vec<CustomValue>,
    /// `proxy_pass_tlvs = [N, "unique_id", "netns", ...]`, default empty: types of values
    /// that go on from the balancer in front, if it sends them.
    pub passed_on: TypeSet,
    /// `proxy_key_file = "path"`, default none: its first key signs every header. Relative to
    /// the configuration file, readable by its owner alone; a change is noticed as one of the
    /// certificates is.
    pub key_file: Option<Located<PathBuf>>,
}

impl ProxyHeaderSettings {
    /// As far as the configuration tells.
    pub fn contents(&self) -> Contents {
        Contents {
            values: self.values.value,
            alignment: self.alignment.map_or(1, usize::from),
            custom: self.custom.clone(),
            passed_on: self.passed_on,
            ..Contents::default()
        }
    }
}

pub(super) const KEYS: [&str; 5] =
    ["proxy_tlvs", "proxy_align", "proxy_custom_tlvs", "proxy_pass_tlvs", "proxy_key_file"];

const CUSTOM_KEYS: &[&str] = &["type", "value"];

/// What can be passed on and has a name.
const NAMED_TYPES: [(&str, u8); 2] = [("unique_id", TYPE_UNIQUE_ID), ("netns", TYPE_NETNS)];

pub(super) fn read(
    report: &mut Report<'_>,
    pool: &Section<'_>,
    directory: &Path,
    version: ProxyProtocol,
) -> ProxyHeaderSettings {
    for key in KEYS {
        if let Some(item) = pool.item(report, key)
            && version != ProxyProtocol::V2
        {
            let message = "has no effect without proxy_protocol = \"v2\"".into();
            report.warning(item.place(), message, Some("take one of the two out".into()));
        }
    }
    let custom = pool.value(report, "proxy_custom_tlvs", Vec::new(), read_customs);
    ProxyHeaderSettings {
        values: pool.value(report, "proxy_tlvs", Located::from(ValueSet::default()), read_values),
        alignment: pool.optional(report, "proxy_align", |item, report| {
            item.count(report, 1..=Contents::ALIGNMENT_MAX as u8)
        }),
        passed_on: pool.value(report, "proxy_pass_tlvs", TypeSet::default(), |item, report| {
            read_passed_on(item, report, &custom)
        }),
        custom,
        key_file: pool.optional(report, "proxy_key_file", |item, report| {
            item.path(report, directory).map(|path| item.locate(path))
        }),
    }
}

fn read_values(item: &Item<'_>, report: &mut Report<'_>) -> Option<Located<ValueSet>> {
    let mut values = ValueSet::NONE;
    for element in item.elements(report)? {
        values = values.with(element.choice(report, &Value::ALL)?);
    }
    Some(item.locate(values))
}

fn read_customs(item: &Item<'_>, report: &mut Report<'_>) -> Option<Vec<CustomValue>> {
    let elements = item.elements(report)?;
    if elements.len() > Contents::CUSTOM_MAX {
        let message = format!("{} values", elements.len());
        let help = format!("write at most {}", Contents::CUSTOM_MAX);
        report.error(item.place(), message, Some(help));
        return None;
    }
    let mut customs: Vec<CustomValue> = Vec::new();
    for element in elements {
        let section = element.section(report, CUSTOM_KEYS);
        let example = "write { type = 0xE0, value = \"{ja4}\" }";
        let kind = section.required(report, "type", example, |item, report| {
            let kind = read_type(item, report, is_custom, "0xE7 is that of signatures")?;
            if customs.iter().any(|other| other.kind == kind) {
                let message = format!("type {kind:#04X} is listed twice");
                report.error(item.place(), message, Some("take one of the two out".into()));
                return None;
            }
            Some(kind)
        });
        let template = section.required(report, "value", example, read_template);
        if let (Some(kind), Some(template)) = (kind, template) {
            customs.push(CustomValue { kind, template });
        }
    }
    Some(customs)
}

fn read_template(item: &Item<'_>, report: &mut Report<'_>) -> Option<Template> {
    let text = item.text(report)?;
    Template::parse(text)
        .map_err(|error| {
            let help = match &error {
                TemplateError::Unknown(name) => {
                    Some(match suggest::nearest(name, Template::placeholders()) {
                        Some(near) => format!("did you mean {{{near}}}?"),
                        None => {
                            let known = Template::placeholders().map(|name| format!("{{{name}}}"));
                            let known: Vec<_> = known.collect();
                            format!("there are {}", known.join(", "))
                        }
                    })
                }
                _ => None,
            };
            report.error(item.place(), error.to_string(), help);
        })
        .ok()
}

fn read_passed_on(
    item: &Item<'_>,
    report: &mut Report<'_>,
    custom: &[CustomValue],
) -> Option<TypeSet> {
    let mut types = TypeSet::default();
    for element in item.elements(report)? {
        let kind = if element.is_text() {
            element.choice(report, &NAMED_TYPES)?
        } else {
            let others = "and \"unique_id\" and \"netns\"; the rest forebay knows better";
            read_type(&element, report, can_be_passed_on, others)?
        };
        if custom.iter().any(|own| own.kind == kind) {
            let message = format!("type {kind:#04X} is one of proxy_custom_tlvs");
            report.error(element.place(), message, Some("take one of the two out".into()));
            return None;
        }
        types.insert(kind);
    }
    Some(types)
}

fn read_type(
    item: &Item<'_>,
    report: &mut Report<'_>,
    is_good: impl Fn(u8) -> bool,
    besides: &str,
) -> Option<u8> {
    let kind = item.count(report, 0..=u8::MAX)?;
    if is_good(kind) {
        return Some(kind);
    }
    let message = format!("type {kind:#04X} cannot be used here");
    let help = format!("types for applications are 0xE0 to 0xF7; {besides}");
    report.error(item.place(), message, Some(help));
    None
}
