//! TLS configurations from a secret or from files.

use super::authority::{Authority, Role};
use super::secret::{Secret, derive};
use super::{CLIENT_NAME, NODE_NAME};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long a certificate that a node signs for itself is valid.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How old it may get before the node signs a new one.
const RENEWED_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// The application protocol (ALPN) of every ringdove connection. Versions are the hello's affair.
const ALPN: &[u8] = b"ringdove";

/// Who is trusted, and what proves that we may be.
///
/// Cheap to clone. From a secret, certificates are signed anew every day of uptime, so that a
/// long-lived process never runs out of validity; connections that are up aren't touched.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    source: Source,
    reset_key: Arc<Zeroizing<[u8; 32]>>,
    development: bool,
}

#[derive(Clone)]
enum Source {
    Derived(Arc<Authority>),
    Issued { role: Role, key: Arc<CertifiedKey> },
}

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The cryptography library refuses something.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// A certificate can't be signed.
    #[error("cannot sign a certificate: {0}")]
    Sign(#[from] rcgen::Error),
    /// The trusted certificate can't be used to verify others.
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(String),
    /// Our own certificate wouldn't be accepted by peers.
    #[error("the certificate is not acceptable to peers: {0}")]
    Unacceptable(String),
    /// A client's certificate where a node's is needed.
    #[error("a node needs a certificate for the name {NODE_NAME}; this one is a client's")]
    NotANode,
}

impl Trust {
    /// Trust in everybody who knows `secret`.
    ///
    /// # Errors
    /// [`TlsError`] if the cryptography library refuses the derived key (it doesn't).
    pub fn from_secret(secret: &Secret) -> Result<Trust, TlsError> {
        let authority = Authority::from_seed(&secret.derive(b"certificate authority, ed25519"))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone())?;
        Ok(Trust {
            roots: Arc::new(roots),
            source: Source::Derived(Arc::new(authority)),
            reset_key: Arc::new(secret.derive(b"stateless reset")),
            development: secret.is_development(),
        })
    }

    /// Trust in an authority's certificate, with a certificate and key that it issued to us.
    ///
    /// # Errors
    /// [`TlsError::Unacceptable`] if peers wouldn't accept the certificate: another authority's,
    /// expired, not yet valid, or for neither role.
    pub(super) fn from_issued(
        authority: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Trust, TlsError> {
        let reset_key = derive(key.secret_der(), b"stateless reset");
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| TlsError::Authority(error.to_string()))?;
        let roots = Arc::new(roots);
        let role = acceptable_role(&roots, &key.cert)?;
        Ok(Trust {
            roots,
            source: Source::Issued { role, key: Arc::new(key) },
            reset_key: Arc::new(reset_key),
            development: false,
        })
    }

    /// Whether this is the trust of the built-in development secret, fit for loopback only.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// The configuration of a node's listening side: TLS 1.3, a certificate from every peer.
    ///
    /// # Errors
    /// [`TlsError::NotANode`] if our certificate is a client's.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let identity = self.identity(Role::Node, "ringdove node")?;
        let verifier = client_verifier(&self.roots)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection proves itself anew: links are long-lived and few.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// A server's configuration for clients without certificates, such as Redis clients: TLS 1.3
    /// with our own certificate.
    ///
    /// # Errors
    /// [`TlsError::NotANode`] if our certificate is a client's.
    pub fn public_server_config(&self) -> Result<ServerConfig, TlsError> {
        let identity = self.identity(Role::Node, "ringdove node")?;
        Ok(ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(identity))
    }

    /// The configuration of a dialling side, as a node or as a client.
    ///
    /// A node's certificate may dial as a client, not the other way round.
    ///
    /// # Errors
    /// [`TlsError::NotANode`] if our certificate is a client's and `role` is a node's.
    pub fn client_config(&self, role: Role) -> Result<ClientConfig, TlsError> {
        let identity = self.identity(role, "ringdove")?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The key of QUIC's stateless resets (RFC 9000, 10.3) for the endpoint at `addr`. Whoever
    /// restarts there has the same key, and resets its predecessor's connections at once; other
    /// addresses have others, so that no node's resets end another's connections.
    pub(in crate::drivers) fn reset_key(&self, addr: SocketAddr) -> ring::hmac::Key {
        use ring::hmac::{HMAC_SHA256, Key, sign};
        let shared = Key::new(HMAC_SHA256, self.reset_key.as_slice());
        Key::new(HMAC_SHA256, sign(&shared, addr.to_string().as_bytes()).as_ref())
    }

    fn identity(&self, role: Role, name: &'static str) -> Result<Arc<Identity>, TlsError> {
        Ok(Arc::new(match &self.source {
            Source::Issued { role: Role::Client, .. } if role == Role::Node => {
                return Err(TlsError::NotANode);
            }
            Source::Issued { key, .. } => Identity::Issued(key.clone()),
            Source::Derived(authority) => Identity::Renewed(Renewed {
                authority: authority.clone(),
                role,
                name,
                current: Mutex::new(Renewed::sign(authority, role, name, SystemTime::now())?),
            }),
        }))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Derived(_) if self.development => "Trust(development secret)",
            Source::Derived(_) => "Trust(secret)",
            Source::Issued { .. } => "Trust(issued certificate)",
        })
    }
}

/// What we show to prove who we are.
enum Identity {
    Issued(Arc<CertifiedKey>),
    Renewed(Renewed),
}

/// A certificate that its holder signs anew before it gets old.
struct Renewed {
    authority: Arc<Authority>,
    role: Role,
    name: &'static str,
    /// Locked for the time of a look, or of a signature once a day.
    current: Mutex<(SystemTime, Arc<CertifiedKey>)>,
}

impl Renewed {
    fn sign(
        authority: &Authority,
        role: Role,
        name: &str,
        now: SystemTime,
    ) -> Result<(SystemTime, Arc<CertifiedKey>), TlsError> {
        let issued = authority.issue(role, name, now, VALIDITY)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(vec![issued.certificate], key, &provider)?;
        Ok((now, Arc::new(key)))
    }

    fn current(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back makes a certificate look as if from the future: renew it too.
        let fresh = now.duration_since(current.0).is_ok_and(|age| age < RENEWED_AFTER);
        if !fresh && let Ok(signed) = Renewed::sign(&self.authority, self.role, self.name, now) {
            *current = signed;
        }
        current.1.clone()
    }
}

impl Identity {
    fn show(&self) -> Arc<CertifiedKey> {
        match self {
            Identity::Issued(key) => key.clone(),
            Identity::Renewed(renewed) => renewed.current(SystemTime::now()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl rustls::server::ResolvesServerCert for Identity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.show())
    }
}

impl rustls::client::ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.show())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The role that a verified peer's certificate allows; `None` if it names neither.
pub fn peer_role(chain: &[CertificateDer<'_>]) -> Option<Role> {
    let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
    let is_for = |name: &'static str| {
        let name = ServerName::try_from(name).ok()?;
        verify_server_name(&certificate, &name).ok()
    };
    match (is_for(NODE_NAME), is_for(CLIENT_NAME)) {
        (Some(()), _) => Some(Role::Node),
        (None, Some(())) => Some(Role::Client),
        (None, None) => None,
    }
}

/// What peers would make of our own certificate.
fn acceptable_role(roots: &Arc<RootCertStore>, chain: &[CertificateDer<'static>]) -> Result<Role, TlsError> {
    let refused = |why: String| TlsError::Unacceptable(why);
    let (first, intermediates) =
        chain.split_first().ok_or_else(|| refused("there is no certificate in the file".into()))?;
    client_verifier(roots)?
        .verify_client_cert(first, intermediates, UnixTime::now())
        .map_err(|error| refused(error.to_string()))?;
    peer_role(chain).ok_or_else(|| refused(format!("it names neither {NODE_NAME} nor {CLIENT_NAME}")))
}

fn client_verifier(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
