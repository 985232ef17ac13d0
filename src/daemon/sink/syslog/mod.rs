//! Sends alerts to a syslog receiver: `message` writes them, `connection` transports them, `cef` is one of the formats.

mod cef;
mod connection;
mod message;

use prometheus::IntCounter;

use super::config;
use super::error::SettingsError;
use super::failure::Failure;
use crate::detection::alert::StoredAlert;
use connection::{Connection, Connector};
use message::Writer;

/// Maximum size of one write to a stream; a single message may exceed it.
const MAX_WRITE_BYTES: usize = 256 << 10;

/// Sends messages to one receiver.
#[derive(Debug)]
pub(crate) struct SyslogSink {
    writer: Writer,
    connector: Connector,
    /// `None` while a write runs: if the write is dropped halfway, so is the connection, and no message follows half of another.
    connection: Option<Connection>,
    max_datagram: usize,
    truncated: IntCounter,
}

impl SyslogSink {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(settings: &config::Syslog, truncated: IntCounter) -> Result<Self, SettingsError> {
        Ok(SyslogSink {
            writer: Writer::new(settings)?,
            connector: Connector::new(&settings.transport)?,
            connection: None,
            // Receivers must accept 480 (RFC 5424, 6.1); a datagram over IPv4 has at most 65,507.
            max_datagram: settings.max_datagram.clamp(480, 65_507),
            truncated,
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
            self.writer.write(alert, usize::MAX, &mut message);
            if count > 0 && bytes.len() + message.len() > MAX_WRITE_BYTES {
                break;
            }
            connection.frame(&message, &mut bytes);
            count += 1;
        }
        connection.write(&bytes).await.map_err(|error| Failure::io(&error))?;
        Ok(count)
    }

    async fn datagrams(&self, connection: &mut Connection, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut message = Vec::new();
        for (done, alert) in alerts.iter().enumerate() {
            let mut max_len = self.max_datagram;
            loop {
                message.clear();
                let is_truncated = self.writer.write(alert, max_len, &mut message);
                match connection.send(&message).await {
                    Ok(()) => {
                        self.truncated.inc_by(u64::from(is_truncated));
                        break;
                    }
                    // The path's limit is below the configured one: it would never accept this message.
                    Err(error) if connection::is_too_long(&error) && max_len > 480 => {
                        max_len = (max_len / 2).max(480);
                    }
                    // The error is about a datagram that was sent earlier; it is unknown which.
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
