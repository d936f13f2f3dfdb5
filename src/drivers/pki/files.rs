//! Certificates as files, for those who bring their own.
//!
//! [`init`] makes an authority; [`issue`] makes a folder for one node or client, ready to be
//! copied to its machine; [`load`] reads such a folder. Keys are readable by their owner only.

use super::authority::{Authority, Issued};
use super::{Role, TlsError, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// The certificate of the authority: what everybody trusts.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The key of the authority: whoever has it can let anybody in.
pub const CA_KEY: &str = "ca.key";

const DAY: Duration = Duration::from_secs(24 * 3_600);
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3_650 * DAY.as_secs());
const ISSUED_VALIDITY: Duration = Duration::from_secs(397 * DAY.as_secs());
/// Larger files are no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What can go wrong with certificate files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A file holds no such thing.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name can't be a folder's.
    #[error("a name is 1 to 64 letters, digits, '-', '_' or '.', and starts with none of the last")]
    Name,
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Makes a new authority in `dir`: `ca.pem` and `ca.key`. Never overwrites one.
///
/// # Errors
/// [`FilesError::Io`], among others if there is an authority already.
pub fn init(dir: &Path) -> Result<(), FilesError> {
    create_dir(dir)?;
    let issued = Authority::generate(SystemTime::now(), AUTHORITY_VALIDITY).map_err(sign_failed)?;
    write(dir, CA_CERTIFICATE, CA_KEY, &issued)
}

/// Issues a certificate for one node or client by the authority in `dir` and writes it to
/// `dir/name`: `ca.pem` with `node.pem` and `node.key`, or `client.pem` and `client.key`. Returns
/// that folder. Never overwrites one.
///
/// # Errors
/// [`FilesError`]: no authority in `dir`, a name that can't be a folder's, a folder that exists.
pub fn issue(dir: &Path, name: &str, role: Role) -> Result<PathBuf, FilesError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !(1..=64).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(FilesError::Name);
    }
    let ca_path = dir.join(CA_CERTIFICATE);
    let certificate = read(&ca_path)?;
    let key = read(&dir.join(CA_KEY))?;
    let authority = Authority::from_pem(&certificate, &key)
        .map_err(|error| FilesError::Content { path: ca_path.clone(), reason: error.to_string() })?;
    let issued = authority.issue(role, name, SystemTime::now(), ISSUED_VALIDITY).map_err(sign_failed)?;
    // An authority made elsewhere may not match what we sign with: notice before it is deployed.
    let key = PrivateKeyDer::from_pem_slice(issued.key.serialize_pem().as_bytes())
        .map_err(|error| FilesError::Content { path: dir.join(CA_KEY), reason: error.to_string() })?;
    Trust::from_issued(authority.certificate().clone(), vec![issued.certificate.clone()], key)?;

    let folder = dir.join(name);
    create_dir(&folder)?;
    let (certificate_name, key_name) = names(role);
    write(&folder, certificate_name, key_name, &issued)?;
    write_file(&folder.join(CA_CERTIFICATE), certificate.as_bytes(), 0o644)?;
    Ok(folder)
}

/// Reads a folder as [`issue`] writes it (or as you made it yourself): `ca.pem` and, for a node,
/// `node.pem` (a chain, ours first) with `node.key`. For a client, `client.pem` and `client.key`
/// are preferred if they are there.
///
/// # Errors
/// [`FilesError`]: a file missing or malformed, or a certificate that peers would refuse.
pub fn load(dir: &Path, role: Role) -> Result<Trust, FilesError> {
    let role = if dir.join(names(role).0).exists() { role } else { Role::Node };
    let (certificate_name, key_name) = names(role);
    let (ca_path, path, key_path) =
        (dir.join(CA_CERTIFICATE), dir.join(certificate_name), dir.join(key_name));
    let content = |path: &Path, error: rustls::pki_types::pem::Error| FilesError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let authority = CertificateDer::from_pem_slice(read(&ca_path)?.as_bytes())
        .map_err(|error| content(&ca_path, error))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(read(&path)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| content(&path, error))?;
    let key = PrivateKeyDer::from_pem_slice(read(&key_path)?.as_bytes())
        .map_err(|error| content(&key_path, error))?;
    Ok(Trust::from_issued(authority, chain, key)?)
}

/// A server's configuration for clients without certificates: TLS 1.3 with the chain and the key of
/// two PEM files.
///
/// # Errors
/// [`FilesError`]: a file missing or malformed, or a key that doesn't fit.
pub fn public_server_config(cert_path: &Path, key_path: &Path) -> Result<rustls::ServerConfig, FilesError> {
    let content = |path: &Path, error: rustls::pki_types::pem::Error| FilesError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(read(cert_path)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| content(cert_path, error))?;
    let key = PrivateKeyDer::from_pem_slice(read(key_path)?.as_bytes())
        .map_err(|error| content(key_path, error))?;
    let config = rustls::ServerConfig::builder_with_provider(super::trust::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    config.map_err(|error| FilesError::Tls(TlsError::Rustls(error)))
}

fn names(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Node => ("node.pem", "node.key"),
        Role::Client => ("client.pem", "client.key"),
    }
}

fn sign_failed(error: rcgen::Error) -> FilesError {
    FilesError::Tls(TlsError::Sign(error))
}

fn read(path: &Path) -> Result<Zeroizing<String>, FilesError> {
    let failed = |error| FilesError::Io { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("too large for a certificate or key")));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

fn write(dir: &Path, certificate_name: &str, key_name: &str, issued: &Issued) -> Result<(), FilesError> {
    let key_pem = Zeroizing::new(issued.key.serialize_pem());
    write_file(&dir.join(key_name), key_pem.as_bytes(), 0o600)?;
    write_file(&dir.join(certificate_name), issued.certificate_pem.as_bytes(), 0o644)
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), FilesError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| FilesError::Io { path: path.to_owned(), error })
}

fn create_dir(path: &Path) -> Result<(), FilesError> {
    DirBuilder::new()
        .recursive(true)
        .create(path)
        .map_err(|error| FilesError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_folders_load_in_their_role() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let node = issue(dir.path(), "a", Role::Node).unwrap();
        let client = issue(dir.path(), "someone", Role::Client).unwrap();

        let trust = load(&node, Role::Node).unwrap();
        trust.server_config().unwrap();
        load(&node, Role::Client).unwrap().client_config(Role::Client).unwrap();
        let trust = load(&client, Role::Client).unwrap();
        assert!(matches!(trust.client_config(Role::Node), Err(TlsError::NotANode)));
        assert!(matches!(trust.server_config(), Err(TlsError::NotANode)));
        trust.client_config(Role::Client).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let node = issue(dir.path(), "a", Role::Node).unwrap();
        for key in [dir.path().join(CA_KEY), node.join("node.key")] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn nothing_is_overwritten_and_no_name_leaves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        assert!(matches!(init(dir.path()), Err(FilesError::Io { .. })));
        issue(dir.path(), "a", Role::Node).unwrap();
        assert!(matches!(issue(dir.path(), "a", Role::Node), Err(FilesError::Io { .. })));
        for name in ["", "..", "a/b", ".hidden", "ä"] {
            assert!(matches!(issue(dir.path(), name, Role::Node), Err(FilesError::Name)), "{name}");
        }
    }

    #[test]
    fn another_authoritys_certificate_is_noticed_at_once() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(one.path()).unwrap();
        init(two.path()).unwrap();
        let node = issue(one.path(), "a", Role::Node).unwrap();
        fs::copy(two.path().join(CA_CERTIFICATE), node.join(CA_CERTIFICATE)).unwrap();
        let error = load(&node, Role::Node).unwrap_err();
        assert!(matches!(error, FilesError::Tls(TlsError::Unacceptable(_))), "{error}");
    }
}
