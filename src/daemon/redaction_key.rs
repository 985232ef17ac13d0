//! The key of redacted values, one per installation, in the state directory.
//!
//! Takes the state directory, returns the key; creates a random one if there is none. The key must never be logged or served:
//! with it, guesses of redacted values can be tested.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::detection::audit::redact::RedactionKey;

/// Name of the file, which contains 32 random bytes. Copy it between replicas that share correlations.
const FILE: &str = "redaction.key";

/// Reads the key, or creates it with mode 0600. Only the holder of the directory's lock may call this.
///
/// # Errors
///
/// If the file cannot be read or created, or is not a key.
pub(crate) fn load_or_create(state_dir: &Path) -> io::Result<RedactionKey> {
    let path = state_dir.join(FILE);
    let context = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("cannot use the redaction key {}: {error}", path.display()))
    };
    match fs::read(&path) {
        Ok(bytes) => {
            let key = <[u8; 32]>::try_from(bytes)
                .map_err(|_| context(&"expected 32 bytes; delete the file to have another key created"))?;
            Ok(RedactionKey::new(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(state_dir, &path).map_err(|error| context(&error))
        }
        Err(error) => Err(context(&error)),
    }
}

fn create(state_dir: &Path, path: &Path) -> io::Result<RedactionKey> {
    let bytes: [u8; 32] = rand::random();
    // Renamed when complete, so that a crash cannot leave a part of a key.
    let temporary = state_dir.join(format!("{FILE}.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(RedactionKey::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn creates_a_key_once_and_rejects_what_is_not_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = load_or_create(dir.path()).unwrap();
        assert!(key != RedactionKey::default() && load_or_create(dir.path()).unwrap() == key);
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(load_or_create(dir.path()).unwrap_err().to_string().contains("32 bytes"));
    }
}
