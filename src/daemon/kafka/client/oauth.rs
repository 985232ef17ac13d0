//! Reads a SASL OAUTHBEARER token from a file that another program renews: a sidecar, or Kubernetes (projected service account tokens).

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

use crate::daemon::time::since_epoch;

/// Maximum size of a token.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Lifetime that is assumed if the token does not state one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// Claims of a JWT.
#[derive(Default, Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Option<i64>,
    #[serde(default)]
    sub: Option<String>,
}

/// Reads the token. Errors name the file, never its content.
pub fn token(path: Option<&Path>) -> Result<OAuthToken, Box<dyn Error>> {
    use std::io::Read as _;
    let path = path.ok_or("OAUTHBEARER needs `oauth_token_file`")?;
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong(&"the file holds no token").into());
    }
    let claims = claims(token).unwrap_or_default();
    let soon = since_epoch() + DEFAULT_LIFETIME;
    let end = claims.exp.and_then(|seconds| seconds.checked_mul(1000));
    Ok(OAuthToken {
        token: token.to_owned(),
        principal_name: claims.sub.unwrap_or_else(|| "pullwatch".to_owned()),
        lifetime_ms: end.unwrap_or_else(|| i64::try_from(soon.as_millis()).unwrap_or(i64::MAX)),
    })
}

fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_expiry_and_subject_and_never_shows_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"system:serviceaccount:a:b","exp":1790000000}"#);
        std::fs::write(&path, format!("eyJh.{payload}.sig\n")).unwrap();
        let read = token(Some(&path)).unwrap();
        assert_eq!(
            (read.principal_name.as_str(), read.lifetime_ms),
            ("system:serviceaccount:a:b", 1_790_000_000_000)
        );
        std::fs::write(&path, "opaque").unwrap();
        assert_eq!(token(Some(&path)).unwrap().principal_name, "pullwatch");
        std::fs::write(&path, " \n").unwrap();
        assert!(token(Some(&path)).err().unwrap().to_string().ends_with("the file holds no token"));
        assert!(token(None).is_err());
    }
}
