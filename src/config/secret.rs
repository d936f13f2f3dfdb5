//! What must never be shown.

use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// The longest file read as a secret, in bytes: a wrong path should not be swallowed whole.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A secret or password. Wiped from memory when dropped; `Debug` shows nothing of it, and there is
/// no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one place that uses them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Reads a secret from the first line of a file.
    ///
    /// # Errors
    ///
    /// The reason in words: the file can't be read, is too long, or its first line is empty.
    pub fn read(path: &Path) -> Result<Secret, String> {
        let shown = path.display();
        let length = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
        if length > FILE_BYTES_MAX {
            return Err(format!("{shown} is {length} bytes long, which no secret is"));
        }
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?);
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Err(format!("the first line of {shown} is empty"));
        }
        Ok(Secret::new(line))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
