//! Lets clients in by their certificates, and remembers whom, so that a verifier of later
//! can be asked about them.
//!
//! ```text
//!   workers ── Gate::admit ─▶ Client ──Arc──▶ its connection: `is_refused`, one load
//!                               │ Weak
//!                               ▼
//!                        AdmittedClients ◀── whoever has a new verifier: `chain`, `refuse`
//! ```
//!
//! A client stays as long as its connection: nobody has to take it off a list, and no lock
//! is taken where connections end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls::Error;
use rustls::pki_types::CertificateDer;

use super::{ClientCertificate, Verifier};

/// The verifier of a listener or a name, and the list that those go on whom it lets in.
#[derive(Debug)]
pub struct Gate {
    verifier: Arc<Verifier>,
    admitted: Arc<AdmittedClients>,
}

/// What a client came to, by which the gate that stands there later is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// The listening socket, by its place.
    pub listener: u16,
    /// The name asked for, in lower case.
    pub server_name: Option<Box<str>>,
}

impl Gate {
    /// A gate that notes in `admitted` whom it lets in.
    pub fn new(verifier: Arc<Verifier>, admitted: Arc<AdmittedClients>) -> Self {
        Self { verifier, admitted }
    }

    /// Who decides.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// To be called when a handshake is done: with the chain that it verified or, if it
    /// `resumed` a session, with the one that the ticket remembers, which is verified here.
    /// `None`: there was none, and there need not be.
    ///
    /// # Errors
    /// The client may not come in, or not any more; the alert follows from the error.
    pub fn admit(
        &self,
        chain: Option<&[CertificateDer<'static>]>,
        resumed: bool,
        entrance: Entrance,
        now_since_epoch: Duration,
    ) -> Result<Option<Arc<Client>>, Error> {
        let Some(chain) = chain else {
            return match self.verifier.requires_a_certificate() {
                true => Err(Error::NoCertificatesPresented),
                false => Ok(None),
            };
        };
        if resumed {
            self.verifier.check(chain, now_since_epoch)?;
        }
        let own = chain.first().and_then(|own| ClientCertificate::parse(own).ok());
        let common_name = own.as_ref().and_then(ClientCertificate::common_name).map(Box::from);
        let client = Arc::new(Client {
            chain: chain.into(),
            common_name,
            entrance,
            verified_by: *self.verifier.id(),
            refused: AtomicBool::new(false),
        });
        self.admitted.add(&client);
        Ok(Some(client))
    }
}

/// A client that came in by its certificate. Its size is that of the certificates and a
/// hundred bytes: at most one largest handshake message, usually 1 to 2 KiB.
#[derive(Debug)]
pub struct Client {
    chain: Box<[CertificateDer<'static>]>,
    common_name: Option<Box<str>>,
    entrance: Entrance,
    verified_by: [u8; 32],
    refused: AtomicBool,
}

impl Client {
    /// The certificates it showed, its own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Its common name, if its certificate has just one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Where it came in.
    pub fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// The [`Verifier::id`] of the one that let it in.
    pub const fn verified_by(&self) -> &[u8; 32] {
        &self.verified_by
    }

    /// It may not stay.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether it may not stay. Who was told by another thread that somebody is refused sees
    /// here whom.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The clients let in since they were last taken, by all workers.
///
/// Those whose connections have ended are left out whenever the list has doubled, so it
/// is never longer than twice the connections there are, and [`Self::LENGTH_KEPT`].
#[derive(Debug, Default)]
pub struct AdmittedClients(Mutex<WeakList>);

#[derive(Debug, Default)]
struct WeakList {
    clients: Vec<Weak<Client>>,
    living_at_last_look: usize,
}

impl AdmittedClients {
    /// Lists that short are not looked through.
    pub const LENGTH_KEPT: usize = 1024;

    fn add(&self, client: &Arc<Client>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.clients.len() >= Self::LENGTH_KEPT.max(2 * list.living_at_last_look) {
            list.clients.retain(|client| client.strong_count() > 0);
            list.living_at_last_look = list.clients.len();
        }
        list.clients.push(Arc::downgrade(client));
    }

    /// Those who came since the last call.
    pub fn take(&self) -> Vec<Weak<Client>> {
        let list = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.living_at_last_look = 0;
        std::mem::take(&mut list.clients)
    }
}
