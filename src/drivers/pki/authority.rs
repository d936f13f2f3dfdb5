//! The certificate authority of one cluster.

use super::{CLIENT_NAME, NODE_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// A certificate is valid from so long before it was signed: clocks differ between machines.
const BACKDATED: Duration = Duration::from_secs(24 * 3_600);
/// PKCS #8 (RFC 8410) around a 32-byte Ed25519 seed.
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What a certificate lets its holder be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// A member: serves, replicates, gossips.
    Node,
    /// Sends commands only.
    Client,
}

/// Signs the certificates of one cluster.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate with its private key.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) certificate_pem: String,
    pub(super) key: KeyPair,
}

impl Authority {
    /// The one authority that this seed stands for: the same on every node.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Result<Authority, rcgen::Error> {
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(ED25519_PKCS8_PREFIX.len() + seed.len()));
        pkcs8.extend_from_slice(&ED25519_PKCS8_PREFIX);
        pkcs8.extend_from_slice(seed);
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?;
        let params = authority_params();
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// A new authority with a random key, valid for `validity` from `now`.
    pub(super) fn generate(now: SystemTime, validity: Duration) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = authority_params();
        params.not_before = backdated(now).into();
        params.not_after = (now + validity).into();
        let signed = params.self_signed(&key)?;
        Ok(Issued { certificate: signed.der().clone(), certificate_pem: signed.pem(), key })
    }

    /// An authority from the PEM text of its certificate and key, as [`Authority::generate`] made
    /// them.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Authority, rcgen::Error> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        Ok(Authority { issuer: Issuer::new(authority_params(), KeyPair::from_pem(key)?), certificate })
    }

    /// The authority's own certificate: what others trust.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a certificate for a new key. `name` is for humans.
    pub(super) fn issue(
        &self,
        role: Role,
        name: &str,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let (san, usages) = match role {
            Role::Node => {
                (NODE_NAME, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
            }
            Role::Client => (CLIENT_NAME, vec![ExtendedKeyUsagePurpose::ClientAuth]),
        };
        let mut params = CertificateParams::new(vec![san.to_owned()])?;
        params.distinguished_name = distinguished_name(name);
        params.not_before = backdated(now).into();
        params.not_after = (now + validity).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: signed.der().clone(), certificate_pem: signed.pem(), key })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name("ringdove cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn backdated(now: SystemTime) -> SystemTime {
    now.checked_sub(BACKDATED).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_authority() {
        let a = Authority::from_seed(&[7; 32]).unwrap();
        let b = Authority::from_seed(&[7; 32]).unwrap();
        let c = Authority::from_seed(&[8; 32]).unwrap();
        assert_eq!(a.certificate(), b.certificate());
        assert_ne!(a.certificate(), c.certificate());
    }
}
