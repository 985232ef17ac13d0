//! Sends alerts to a syslog receiver: `message` writes them, `connection` transports them.

mod connection;
mod message;

use prometheus::IntCounter;

use super::config;
use super::error::SettingsError;
use super::failure::Failure;
use super::format;
use super::output::Rendering;
use crate::detection::alert::StoredAlert;
use connection::{Connection, Connector};
use message::Writer;

/// Maximum size of one write to a stream; a single message may exceed it.
const MAX_WRITE_BYTES: usize = 256 << 10;

/// Default maximum length of a message, in bytes: that of rsyslog and syslog-ng, which split or truncate longer messages on every
/// transport.
const DEFAULT_MAX_MESSAGE: usize = 8192;

/// Length of messages that all receivers must accept, in bytes (RFC 5424, 6.1).
const MIN_MESSAGE_BYTES: usize = 480;

/// Maximum length of a datagram over IPv4, in bytes.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Sends messages to one receiver.
#[derive(Debug)]
pub(crate) struct SyslogSink {
    writer: Writer,
    connector: Connector,
    /// `None` while a write is running: if the write is dropped halfway, so is the connection, so that no message follows an incomplete
    /// one.
    connection: Option<Connection>,
    /// Maximum length of a message, in bytes.
    max_message: usize,
    shortened: IntCounter,
}

impl SyslogSink {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(settings: &config::Syslog, shape: &Rendering) -> Result<Self, SettingsError> {
        Ok(SyslogSink {
            writer: Writer::new(settings)?,
            connector: Connector::new(&settings.transport)?,
            connection: None,
            max_message: shape.max_len.unwrap_or(DEFAULT_MAX_MESSAGE).max(MIN_MESSAGE_BYTES),
            shortened: shape.shortened.clone(),
        })
    }

    /// Sends as many alerts as fit into one write.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut old = self.connection.take();
        if let Some(connection) = &mut old
            && (self.connector.refresh() || !connection.is_alive().await)
        {
            old = None;
        }
        let mut connection = match old {
            Some(connection) => connection,
            None => self.connector.connect().await?,
        };
        let done = if connection.is_stream() {
            self.stream(&mut connection, alerts).await?
        } else {
            self.datagrams(&mut connection, alerts).await?
        };
        self.connection = Some(connection);
        Ok(done)
    }

    async fn stream(&self, connection: &mut Connection, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let (mut bytes, mut message) = (Vec::new(), Vec::new());
        let mut count = 0;
        for alert in alerts {
            message.clear();
            let Some(is_short) = self.writer.write(alert, self.max_message, &mut message) else {
                if count == 0 {
                    return Err(format::too_long(self.max_message));
                }
                // The next delivery starts with it.
                break;
            };
            if count > 0 && bytes.len() + message.len() > MAX_WRITE_BYTES {
                break;
            }
            self.shortened.inc_by(u64::from(is_short));
            connection.frame(&message, &mut bytes);
            count += 1;
        }
        connection.write(&bytes).await.map_err(|error| Failure::io(&error))?;
        Ok(count)
    }

    async fn datagrams(&self, connection: &mut Connection, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut message = Vec::new();
        for (done, alert) in alerts.iter().enumerate() {
            let mut max_len = self.max_message.min(MAX_DATAGRAM_BYTES);
            loop {
                message.clear();
                let Some(is_short) = self.writer.write(alert, max_len, &mut message) else {
                    return Err(format::too_long(max_len).after(done));
                };
                match connection.send(&message).await {
                    Ok(()) => {
                        self.shortened.inc_by(u64::from(is_short));
                        break;
                    }
                    // The network path or socket has a lower limit than the configured one, and would always reject this message.
                    Err(error) if connection::is_too_long(&error) && max_len > MIN_MESSAGE_BYTES => {
                        max_len = (max_len / 2).max(MIN_MESSAGE_BYTES);
                    }
                    // The error refers to a datagram sent earlier; which one is unknown.
                    Err(error) if connection.has_deferred_errors() => return Err(Failure::io(&error)),
                    Err(error) => return Err(Failure::io(&error).after(done)),
                }
            }
        }
        match connection.deferred_error() {
            Some(error) => Err(Failure::io(&error)),
            None => Ok(alerts.len()),
        }
    }
}
