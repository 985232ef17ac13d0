//! Alerts to a syslog receiver: `message` says what is sent, `connection` how it gets there, `cef` is one of the things to say.

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

/// What is written to a stream at once, but for a message that is longer by itself.
const MAX_WRITE_BYTES: usize = 256 << 10;

/// Messages to a syslog receiver.
#[derive(Debug)]
pub struct SyslogSink {
    writer: Writer,
    connector: Connector,
    /// Nothing while a write runs: when that is dropped halfway, so is the connection, and with it half a message.
    connection: Option<Connection>,
    max_datagram: usize,
    truncated: IntCounter,
}

impl SyslogSink {
    /// Checks the settings. Connects to nothing yet.
    ///
    /// # Errors
    /// When they cannot work.
    pub fn new(settings: &config::Syslog, truncated: IntCounter) -> Result<Self, SettingsError> {
        Ok(SyslogSink {
            writer: Writer::new(settings)?,
            connector: Connector::new(&settings.transport)?,
            connection: None,
            // No receiver takes less than 480 (RFC 5424, 6.1), no datagram over IPv4 holds more than 65,507.
            max_datagram: settings.max_datagram.clamp(480, 65_507),
            truncated,
        })
    }

    /// Sends as many of them as one write takes.
    pub async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
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
            let mut most = self.max_datagram;
            loop {
                message.clear();
                let cut = self.writer.write(alert, most, &mut message);
                match connection.send(&message).await {
                    Ok(()) => {
                        self.truncated.inc_by(u64::from(cut));
                        break;
                    }
                    // A way that takes less than we were told would never take this message.
                    Err(error) if connection::is_too_long(&error) && most > 480 => most = (most / 2).max(480),
                    // A network says so of what was sent before: nobody knows since when.
                    Err(error) if connection.is_late() => return Err(Failure::io(&error)),
                    Err(error) => return Err(Failure::io(&error).after(done)),
                }
            }
        }
        match connection.late_error() {
            Some(error) => Err(Failure::io(&error)),
            None => Ok(alerts.len()),
        }
    }
}
