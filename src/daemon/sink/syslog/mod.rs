//! Alerts to a syslog receiver: `message` says what is sent, `link` how it gets there, `cef` is one of the things to say.

mod cef;
mod connection;
mod message;

use prometheus::IntCounter;

use super::config::{self, SettingsError};
use super::destination::Failure;
use crate::detection::alert::StoredAlert;
use connection::{Dial, Link};
use message::Writer;

/// What is written to a stream at once, but for a message that is longer by itself.
const LONGEST_WRITE: usize = 256 << 10;

/// Messages to a syslog receiver.
#[derive(Debug)]
pub struct SyslogSink {
    writer: Writer,
    dial: Dial,
    /// Nothing while a write runs: when that is dropped halfway, so is the connection, and with it half a message.
    link: Option<Link>,
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
            dial: Dial::new(&settings.transport)?,
            link: None,
            // No receiver takes less than 480 (RFC 5424, 6.1), no datagram over IPv4 holds more than 65,507.
            max_datagram: settings.max_datagram.clamp(480, 65_507),
            truncated,
        })
    }

    /// Sends as many of them as one write takes.
    pub async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut old = self.link.take();
        if let Some(link) = &mut old
            && (self.dial.refresh() || !link.is_alive().await)
        {
            old = None;
        }
        let mut link = match old {
            Some(link) => link,
            None => self.dial.connect().await?,
        };
        let done = if link.is_stream() {
            self.stream(&mut link, alerts).await?
        } else {
            self.datagrams(&mut link, alerts).await?
        };
        self.link = Some(link);
        Ok(done)
    }

    async fn stream(&self, link: &mut Link, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let (mut bytes, mut message) = (Vec::new(), Vec::new());
        let mut count = 0;
        for alert in alerts {
            message.clear();
            self.writer.write(alert, usize::MAX, &mut message);
            if count > 0 && bytes.len() + message.len() > LONGEST_WRITE {
                break;
            }
            link.frame(&message, &mut bytes);
            count += 1;
        }
        link.write(&bytes).await.map_err(|error| Failure::io(&error))?;
        Ok(count)
    }

    async fn datagrams(&self, link: &mut Link, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut message = Vec::new();
        for (done, alert) in alerts.iter().enumerate() {
            let mut most = self.max_datagram;
            loop {
                message.clear();
                let cut = self.writer.write(alert, most, &mut message);
                match link.send(&message).await {
                    Ok(()) => {
                        self.truncated.inc_by(u64::from(cut));
                        break;
                    }
                    // A way that takes less than we were told would never take this message.
                    Err(error) if connection::is_too_long(&error) && most > 480 => most = (most / 2).max(480),
                    // A network says so of what was sent before: nobody knows since when.
                    Err(error) if link.is_late() => return Err(Failure::io(&error)),
                    Err(error) => return Err(Failure::io(&error).after(done)),
                }
            }
        }
        match link.late_error() {
            Some(error) => Err(Failure::io(&error)),
            None => Ok(alerts.len()),
        }
    }
}
