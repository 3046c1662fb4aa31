//! The security domain: what must be equal for a session to be resumed.
//!
//! A session stands for what was proven when it began: that the server holds a
//! certificate for the name, and who the client is, if it was asked. Whoever resumes it
//! must be one who would have proven and asked the same. So the domain is made of the
//! names that the listener's certificates stand for, and of how clients are
//! authenticated. The certificates themselves are not in it: one that was renewed, or a
//! node's own for the same names, proves the same.
//!
//! Where nodes have names of their own beside the shared ones, the operator gives the
//! domain a name instead, and answers for it.
#![forbid(unsafe_code)]

use aws_lc_rs::digest::{self, SHA256};

/// The digest of a domain's description. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DomainId([u8; 32]);

/// How clients are authenticated, as it goes into the digest: they are not.
const CLIENTS_ANONYMOUS: &[u8] = b"client authentication: none";

/// The same for domains that are made of another and a verifier.
const CLIENTS_BY_CERTIFICATE: &[u8] = b"client authentication: certificates";

impl DomainId {
    /// The domain of certificates for these names; order and repetition do not matter.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self::digest(CLIENTS_ANONYMOUS, b"names", names.into_iter().map(str::as_bytes))
    }

    /// The domain that the operator calls `name`; never equal to one of names.
    pub fn named(name: &str) -> Self {
        Self::digest(CLIENTS_ANONYMOUS, b"named", std::iter::once(name.as_bytes()))
    }

    /// The same domain with clients that are authenticated by the verifier with this
    /// [`Verifier::id`](crate::tls::client_auth::Verifier::id): whom other authorities,
    /// lists of the revoked or rules let in has to show the certificate anew.
    pub fn for_clients_of(self, verifier_id: &[u8; 32]) -> Self {
        let parts = [&self.0[..], &verifier_id[..]];
        Self::digest(CLIENTS_BY_CERTIFICATE, b"verifier", parts.into_iter())
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn digest<'a>(clients: &[u8], kind: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut context = digest::Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            // The length in front keeps ["ab"] and ["a", "b"] apart.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(b"forebay session domain v1");
        add(clients);
        add(kind);
        parts.for_each(add);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }
}
