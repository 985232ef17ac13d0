//! Digests of client-chosen values: fixed length, whatever a client sends.

use sha2::{Digest as _, Sha256};

/// SHA-256 of one or several values, truncated to 128 bits. Clients choose the values and must not be able to find two with the same
/// digest; the digest must also be stable across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digest of several values that takes their boundaries into account.
    pub fn of<V: AsRef<[u8]>>(values: &[V]) -> Self {
        let mut hash = Sha256::new();
        for value in values {
            let value = value.as_ref();
            hash.update(value.len().to_le_bytes());
            hash.update(value);
        }
        let whole: [u8; 32] = hash.finalize().into();
        let mut cut = [0; 16];
        cut.copy_from_slice(&whole[..16]);
        Digest(cut)
    }

    /// Converts a number to bytes whose order is that of the numbers.
    pub fn number(number: u32) -> Self {
        Digest(u128::from(number).to_be_bytes())
    }
}
