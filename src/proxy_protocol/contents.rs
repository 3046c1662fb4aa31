//! What the headers of a pool say, beside the addresses, and in which form.
//!
//! Plain data, made by a reload; the encoder reads it for each header.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::authentication::{AuthenticationKey, TYPE_AUTHENTICATION};
use super::template::Template;
use super::{TYPE_MAX_EXPERIMENT, TYPE_MIN_CUSTOM, TYPE_NETNS, TYPE_UNIQUE_ID};

/// A value that the specification has, and forebay can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Value {
    /// The protocol chosen by ALPN (section 2.2.1).
    Alpn,
    /// The name that the client asked for (2.2.2).
    Authority,
    /// A sum over the header (2.2.3).
    Crc32c,
    /// A name for the connection that no other has (2.2.5).
    UniqueId,
    /// That the client speaks TLS, and which version (2.2.6).
    Ssl,
    /// The common name of the client's certificate.
    SslCn,
    /// The cipher suite.
    SslCipher,
    /// What our certificate was signed with.
    SslSigAlg,
    /// The key of our certificate.
    SslKeyAlg,
    /// The key-exchange group.
    SslGroup,
    /// What we have signed the handshake with.
    SslSigScheme,
    /// The client's certificate itself.
    SslClientCert,
    /// The network namespace that forebay runs in (2.2.7).
    Netns,
}

impl Value {
    /// Each under its name in the specification.
    pub const ALL: [(&str, Self); 13] = [
        ("alpn", Self::Alpn),
        ("authority", Self::Authority),
        ("crc32c", Self::Crc32c),
        ("unique_id", Self::UniqueId),
        ("ssl", Self::Ssl),
        ("ssl_cn", Self::SslCn),
        ("ssl_cipher", Self::SslCipher),
        ("ssl_sig_alg", Self::SslSigAlg),
        ("ssl_key_alg", Self::SslKeyAlg),
        ("ssl_group", Self::SslGroup),
        ("ssl_sig_scheme", Self::SslSigScheme),
        ("ssl_client_cert", Self::SslClientCert),
        ("netns", Self::Netns),
    ];

    /// Whether it stands inside of [`Self::Ssl`].
    const fn is_inside_ssl(self) -> bool {
        matches!(
            self,
            Self::SslCn
                | Self::SslCipher
                | Self::SslSigAlg
                | Self::SslKeyAlg
                | Self::SslGroup
                | Self::SslSigScheme
                | Self::SslClientCert
        )
    }
}

/// Some of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSet(u16);

impl ValueSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// The same and `value`. What is inside of [`Value::Ssl`] brings that.
    #[must_use]
    pub const fn with(self, value: Value) -> Self {
        let ssl = if value.is_inside_ssl() { 1 << Value::Ssl as u8 } else { 0 };
        Self(self.0 | 1 << value as u8 | ssl)
    }

    /// Whether `value` is one of them.
    pub const fn contains(self, value: Value) -> bool {
        self.0 >> value as u8 & 1 == 1
    }
}

impl Default for ValueSet {
    fn default() -> Self {
        Self::NONE
            .with(Value::Alpn)
            .with(Value::Authority)
            .with(Value::SslCn)
            .with(Value::SslCipher)
    }
}

/// Some of the 256 types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSet([u64; 4]);

impl TypeSet {
    /// Takes `kind` in.
    pub fn insert(&mut self, kind: u8) {
        self.0[usize::from(kind / 64)] |= 1 << (kind % 64);
    }

    /// Takes all of `other` in.
    pub fn insert_all(&mut self, other: &Self) {
        for (own, others) in self.0.iter_mut().zip(other.0) {
            *own |= others;
        }
    }

    /// Whether `kind` is one of them.
    pub fn contains(&self, kind: u8) -> bool {
        self.0[usize::from(kind / 64)] >> (kind % 64) & 1 == 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// Whether values of this type can be made from a template: those that the specification
/// leaves to applications and experiments (section 2.2.8), but for our own.
pub const fn is_custom(kind: u8) -> bool {
    kind >= TYPE_MIN_CUSTOM && kind <= TYPE_MAX_EXPERIMENT && kind != TYPE_AUTHENTICATION
}

/// Whether values of this type, from a balancer in front, can go on to the servers: those
/// above, and what names the connection and where it came in. The others we know better.
pub const fn can_be_passed_on(kind: u8) -> bool {
    is_custom(kind) || matches!(kind, TYPE_UNIQUE_ID | TYPE_NETNS)
}

/// A value of our own making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomValue {
    /// Its type, of those of [`is_custom`].
    pub kind: u8,
    /// What it says.
    pub template: Template,
}

/// What headers of version 2 say beside the addresses.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Values of the specification.
    pub values: ValueSet,
    /// Headers are filled up to a multiple of so many bytes, at least 1 and at most
    /// [`Self::ALIGNMENT_MAX`].
    pub alignment: usize,
    /// Values of our own making, at most [`Self::CUSTOM_MAX`].
    pub custom: Vec<CustomValue>,
    /// Types of values that go on from the balancer in front.
    pub passed_on: TypeSet,
    /// What the names of connections begin with: 64 bits of chance.
    pub unique_ids: u64,
    /// The name of the network namespace, at most [`Self::NAME_BYTES_MAX`] bytes; empty if it
    /// has none.
    pub network_namespace: Box<str>,
    /// The name of this machine, likewise.
    pub node: Box<str>,
    /// Signs the header.
    pub key: Option<Arc<AuthenticationKey>>,
}

impl Contents {
    /// A cache line: what receivers align to.
    pub const ALIGNMENT_MAX: usize = 64;
    /// The most values of our own making.
    pub const CUSTOM_MAX: usize = 8;
    /// The longest file name (`NAME_MAX` in linux/limits.h) names the longest namespace.
    pub const NAME_BYTES_MAX: usize = 255;

    /// Whether somebody must know the client's fingerprint.
    pub fn wants_fingerprint(&self) -> bool {
        self.custom.iter().any(|value| value.template.wants_fingerprint())
    }
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            values: ValueSet::default(),
            alignment: 1,
            custom: Vec::new(),
            passed_on: TypeSet::default(),
            unique_ids: 0,
            network_namespace: Box::default(),
            node: Box::default(),
            key: None,
        }
    }
}
