//! Bearer tokens that clients must send, from a file.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::NetError;
use super::watched_files::read;

/// A shorter token could be guessed.
const MIN_TOKEN_CHARS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCheck {
    Valid,
    /// No bearer token.
    Missing,
    Wrong,
}

/// The expected token. Only its hash is kept.
#[derive(Clone)]
pub struct Token {
    path: PathBuf,
    hash: Arc<RwLock<[u8; 32]>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.path.display())
    }
}

impl Token {
    /// Reads a token; surrounding whitespace is ignored.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or contains less than 16 characters or characters that are not allowed in a header.
    pub fn load(path: PathBuf) -> Result<Self, NetError> {
        let hash = Self::hash_of(&path)?;
        Ok(Token { path, hash: Arc::new(RwLock::new(hash)) })
    }

    fn hash_of(path: &std::path::Path) -> Result<[u8; 32], NetError> {
        let content = read(path)?;
        let token = content.trim_ascii();
        let wrong = |reason: &str| NetError::Content { path: path.to_owned(), reason: reason.to_owned() };
        if token.len() < MIN_TOKEN_CHARS {
            return Err(wrong("a token must have at least 16 characters"));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(wrong("a token must be printable ASCII without whitespace"));
        }
        Ok(Sha256::digest(token).into())
    }

    /// Reads the file again, and returns whether the token changed.
    ///
    /// # Errors
    ///
    /// As for [`Token::load`]; the current token stays in use.
    pub fn reload(&self) -> Result<bool, NetError> {
        let new = Self::hash_of(&self.path)?;
        // Even if the lock is poisoned, it contains a complete hash.
        let mut hash = self.hash.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(std::mem::replace(&mut *hash, new) != new)
    }

    /// Checks the token of a request. Hashes are compared in constant time, so that the duration reveals nothing about a guess.
    pub fn check(&self, headers: &HeaderMap) -> TokenCheck {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return TokenCheck::Missing };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return TokenCheck::Missing };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return TokenCheck::Missing;
        }
        let shown: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let hash = *self.hash.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bool::from(shown.ct_eq(&hash)) { TokenCheck::Valid } else { TokenCheck::Wrong }
    }
}
