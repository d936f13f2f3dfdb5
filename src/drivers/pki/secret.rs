//! The cluster secret.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// The shortest secret accepted, in bytes.
pub const SECRET_BYTES_MIN: usize = 16;
/// The longest secret accepted, in bytes.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// Known to everybody: it only ever guards a loopback address.
const DEVELOPMENT: &[u8] = b"ringdove development secret, for loopback only";

/// The secret that a cluster's nodes and clients share. Wiped from memory when dropped; never
/// printed.
///
/// It is used as a key, not stretched like a password: draw it at random, for example with
/// `openssl rand -hex 32`.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a secret is refused. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("cannot read the secret file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// Too short to be secret.
    #[error(
        "the secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed \
         (for example: openssl rand -hex 32)"
    )]
    TooShort(usize),
    /// Too long to be one.
    #[error("the secret has more than {SECRET_BYTES_MAX} bytes")]
    TooLong,
}

impl Secret {
    /// A secret from bytes given elsewhere, such as an environment variable. Line ends (`\n`,
    /// `\r\n`) after it are not part of it.
    ///
    /// # Errors
    /// [`SecretError::TooShort`], [`SecretError::TooLong`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Secret, SecretError> {
        let mut bytes = Zeroizing::new(bytes.into());
        while let Some(b'\n' | b'\r') = bytes.last() {
            bytes.pop();
        }
        match bytes.len() {
            n if n < SECRET_BYTES_MIN => Err(SecretError::TooShort(n)),
            n if n > SECRET_BYTES_MAX => Err(SecretError::TooLong),
            _ => Ok(Secret(bytes)),
        }
    }

    /// A secret from a file, which should be readable by its owner only.
    ///
    /// # Errors
    /// All of [`SecretError`].
    pub fn from_file(path: &Path) -> Result<Secret, SecretError> {
        // Reserved at once: a buffer that grew would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 64));
        File::open(path)
            .and_then(|file| file.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes))
            .map_err(|error| SecretError::Unreadable { path: path.to_owned(), error })?;
        Secret::new(std::mem::take(&mut *bytes))
    }

    /// The built-in secret of development clusters. Everybody knows it: a node that uses it must
    /// not listen beyond loopback.
    pub fn development() -> Secret {
        Secret(Zeroizing::new(DEVELOPMENT.to_vec()))
    }

    /// Whether this is the built-in development secret.
    pub fn is_development(&self) -> bool {
        self.0.as_slice() == DEVELOPMENT
    }

    /// A 32-byte key for one purpose: HKDF-SHA256 (RFC 5869) with `purpose` as its info.
    pub(super) fn derive(&self, purpose: &'static [u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.0, purpose)
    }
}

/// HKDF-SHA256 from `input` to a 32-byte key for one purpose.
pub(super) fn derive(input: &[u8], purpose: &'static [u8]) -> Zeroizing<[u8; 32]> {
    use ring::hkdf::{HKDF_SHA256, Salt};
    let key = Salt::new(HKDF_SHA256, b"ringdove v1").extract(input);
    let mut derived = Zeroizing::new([0u8; 32]);
    // SHA-256 gives up to 255 × 32 bytes, so neither step can fail for 32.
    let filled = key.expand(&[purpose], HKDF_SHA256).and_then(|okm| okm.fill(derived.as_mut()));
    if filled.is_err() {
        derived.zeroize();
        unreachable!("HKDF-SHA256 always yields 32 bytes");
    }
    derived
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn line_ends_are_trimmed_and_lengths_bounded() {
        let plain = Secret::new("0123456789abcdef").unwrap();
        let ended = Secret::new("0123456789abcdef\r\n").unwrap();
        assert_eq!(*plain.0, *ended.0);
        assert!(matches!(Secret::new("0123456789abcde\n"), Err(SecretError::TooShort(15))));
        assert!(matches!(Secret::new(vec![b'x'; 5_000]), Err(SecretError::TooLong)));
    }

    #[test]
    fn a_file_gives_the_same_secret() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789abcdef\n").unwrap();
        let read = Secret::from_file(file.path()).unwrap();
        assert_eq!(*read.0, *Secret::new("0123456789abcdef").unwrap().0);
        let error = Secret::from_file(Path::new("/nowhere/secret")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/secret"));
    }

    #[test]
    fn nothing_prints_it() {
        let secret = Secret::new("a secret of enough bytes").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let error = Secret::new("hunter2").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn purposes_and_secrets_give_different_keys() {
        let a = Secret::new("0123456789abcdef").unwrap();
        let b = Secret::new("0123456789abcdeg").unwrap();
        assert_eq!(*a.derive(b"x"), *a.clone().derive(b"x"));
        assert_ne!(*a.derive(b"x"), *a.derive(b"y"));
        assert_ne!(*a.derive(b"x"), *b.derive(b"x"));
        assert!(Secret::development().is_development() && !a.is_development());
    }
}
