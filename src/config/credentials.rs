//! What must never be shown: what peers are checked by, and the RESP door's password.

use crate::drivers::pki::{Role, Secret, SecretError, TlsError, Trust, files};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest password, in bytes: a wrong path should not be swallowed whole.
const PASSWORD_BYTES_MAX: u64 = 4_096;

/// What peers and QUIC clients are checked by.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// The secret built into the program: no protection at all, so loopback only.
    #[default]
    Development,
    /// The cluster's secret.
    Secret(Secret),
    /// A directory with `ca.pem` and, for a node, `node.pem` and `node.key`.
    Certificates(PathBuf),
}

/// Why credentials can't be used. Never holds any of them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The secret is refused.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Both a secret and certificates were given.
    #[error("give either certificates or a secret (--secret-file, RINGDOVE_SECRET), not both")]
    Ambiguous,
    /// A certificate file is refused.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// No TLS configuration can be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Credentials {
    /// Chooses among what was given: a file with the secret, the secret itself (from
    /// `RINGDOVE_SECRET`), a directory of certificates, or nothing. A file wins over the variable.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Secret`], [`CredentialsError::Ambiguous`]. Certificates are read only
    /// by [`Credentials::trust`].
    pub fn choose(
        secret_file: Option<&Path>,
        secret: Option<String>,
        certificates: Option<&Path>,
    ) -> Result<Credentials, CredentialsError> {
        let secret = match (secret_file, secret) {
            (Some(path), _) => Some(Secret::from_file(path)?),
            (None, Some(secret)) => Some(Secret::new(secret)?),
            (None, None) => None,
        };
        match (secret, certificates) {
            (Some(_), Some(_)) => Err(CredentialsError::Ambiguous),
            (Some(secret), None) => Ok(Credentials::Secret(secret)),
            (None, Some(directory)) => Ok(Credentials::Certificates(directory.to_owned())),
            (None, None) => Ok(Credentials::Development),
        }
    }

    /// Whether this is the built-in secret, which protects nothing.
    pub fn is_development(&self) -> bool {
        match self {
            Credentials::Development => true,
            Credentials::Secret(secret) => secret.is_development(),
            Credentials::Certificates(_) => false,
        }
    }

    /// What TLS configurations are made from, for a node or a client. Reads the certificates, if
    /// that is what they are.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Files`], [`CredentialsError::Tls`].
    pub fn trust(&self, role: Role) -> Result<Trust, CredentialsError> {
        match self {
            Credentials::Development => Ok(Trust::from_secret(&Secret::development())?),
            Credentials::Secret(secret) => Ok(Trust::from_secret(secret)?),
            Credentials::Certificates(directory) => Ok(files::load(directory, role)?),
        }
    }
}

/// The password of the RESP door. Wiped from memory when dropped; `Debug` shows nothing of it, and
/// there is no `Display`.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(Zeroizing::new(bytes.into()))
    }

    /// Reads a password from the first line of a file, without the white space around it.
    ///
    /// # Errors
    ///
    /// The reason in words: the file can't be read, is too long, or its first line is empty.
    pub fn read(path: &Path) -> Result<Password, String> {
        let shown = path.display();
        let length = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
        if length > PASSWORD_BYTES_MAX {
            return Err(format!("{shown} is {length} bytes long, which no password is"));
        }
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?);
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Err(format!("the first line of {shown} is empty"));
        }
        Ok(Password::new(line))
    }

    /// The bytes, for a client that has to send them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether a client gave the right one, in a time that tells nothing about how nearly right
    /// a wrong one of the same length was.
    pub fn matches(&self, given: &[u8]) -> bool {
        let differing = self.0.iter().zip(given).fold(0u8, |all, (a, b)| all | (a ^ b));
        self.0.len() == given.len() && std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_match_exactly() {
        let password = Password::new("open sesame");
        assert!(password.matches(b"open sesame"));
        for wrong in [&b""[..], b"open sesam", b"open sesame!", b"open Sesame"] {
            assert!(!password.matches(wrong));
        }
        assert_eq!(format!("{password:?}"), "Password(…)");
    }

    #[test]
    fn the_built_in_secret_is_known_as_such() {
        assert!(Credentials::default().is_development());
        assert!(Credentials::Secret(Secret::development()).is_development());
        assert!(Credentials::default().trust(Role::Client).is_ok());
    }
}
