//! A client context that records the last error.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::{error_kind, token};
use crate::daemon::kafka::KafkaErrorKind;

/// The last error that librdkafka reported, which is more specific than the timeout that follows it.
pub type LastError = Arc<Mutex<Option<(KafkaErrorKind, String)>>>;

pub struct Context {
    last: LastError,
    oauth_token_file: Option<PathBuf>,
}

impl Context {
    pub fn new(last: LastError, oauth_token_file: Option<PathBuf>) -> Self {
        Context { last, oauth_token_file }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let last = (error_kind(code), reason.to_owned());
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token(self.oauth_token_file.as_deref()).inspect_err(|error| {
            let last = (KafkaErrorKind::Authentication, error.to_string());
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        })
    }
}

impl ConsumerContext for Context {}
