//! A login without its password, and the encoding in which secrets hold logins.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;

use crate::detection::audit::json::Raw;

/// Maximum size of a value that is read, in bytes of base64. The API allows 1 MiB for all data of a secret.
pub(super) const MAX_VALUE_LEN: usize = 4 << 20;

/// One login of a registry credential. Never a password or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) host: Option<String>,
    pub(super) username: Option<String>,
}

/// Maximum length of a host or a user name in bytes. Names of hosts have at most 253 characters.
const MAX_NAME_LEN: usize = 256;

impl Login {
    pub(super) fn new(host: Option<String>, username: Option<String>) -> Self {
        let [host, username] = [host, username].map(|name| {
            name.map(|mut name| {
                if name.len() > MAX_NAME_LEN {
                    let end =
                        (0..=MAX_NAME_LEN).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
                    name.truncate(end);
                    name.push('…');
                }
                name
            })
        });
        Login { host, username }
    }
}

/// Decodes base64 as written by Go's encoder, also without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

pub(super) fn decode_base64(value: Option<Raw<'_>>) -> Option<Vec<u8>> {
    let text = value?.string()?;
    if text.len() > MAX_VALUE_LEN { None } else { BASE64.decode(text.trim_ascii()).ok() }
}
