//! The types of destinations behind one interface: takes settings, and delivers alerts or returns a [`Failure`].

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use super::alertmanager::{self, AlertmanagerSink};
use super::config::{Format, Kind, SinkConfig};
use super::deliveries::Deliveries;
use super::error::SettingsError;
use super::failure::Failure;
use super::file::FileSink;
use super::http::HttpSink;
use super::kafka::KafkaSink;
use super::loki::{self, LokiSink};
use super::metrics::Counts;
use super::output::{Output, Rendering};
use super::syslog::SyslogSink;
use crate::detection::alert::StoredAlert;

/// The destination of one sink.
#[derive(Debug)]
pub(crate) enum Destination {
    Output(Output<tokio::io::Stdout>),
    File(FileSink),
    Http(Box<HttpSink>),
    Syslog(Box<SyslogSink>),
    Kafka(Box<KafkaSink>),
    Alertmanager(Box<AlertmanagerSink>),
    Loki(Box<LokiSink>),
}

impl Destination {
    /// Checks the settings. Opens nothing and connects to nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(config: &SinkConfig, counts: &Counts) -> Result<Self, SettingsError> {
        let shape =
            |format| Rendering { format, max_len: config.max_message, shortened: counts.shortened.clone() };
        Ok(match &config.kind {
            Kind::Stdout(settings) => {
                let is_interactive =
                    settings.format == Format::Auto && config.events.is_empty() && io::stdout().is_terminal();
                let format = if is_interactive { Format::Text } else { settings.format };
                Destination::Output(Output::new(tokio::io::stdout(), shape(format)))
            }
            Kind::File(settings) => Destination::File(FileSink::new(settings, shape(settings.format))?),
            Kind::Http(settings) => {
                Destination::Http(Box::new(HttpSink::new(settings, shape(settings.format))?))
            }
            Kind::Kafka(settings) => Destination::Kafka(Box::new(KafkaSink::new(
                settings,
                config.timeout,
                shape(settings.format),
            )?)),
            Kind::Alertmanager(settings) => {
                let deliveries = Arc::new(Deliveries::new(settings.resolve_after));
                let sink = AlertmanagerSink::new(settings, &shape(Format::Falco), deliveries)?;
                Destination::Alertmanager(Box::new(sink))
            }
            Kind::Loki(settings) => {
                Destination::Loki(Box::new(LokiSink::new(settings, shape(settings.format))?))
            }
            Kind::Syslog(settings) => {
                Destination::Syslog(Box::new(SyslogSink::new(settings, &shape(settings.format))?))
            }
        })
    }

    /// Delivers the first of these alerts, at least one of them, and returns how many.
    ///
    /// May be dropped at any await point; alerts delivered before may then be delivered again.
    ///
    /// # Errors
    /// When not all alerts of the attempt were delivered.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        match self {
            Destination::Output(output) => output.deliver(alerts).await,
            Destination::File(file) => file.deliver(alerts).await,
            Destination::Http(http) => http.deliver(alerts).await,
            Destination::Syslog(syslog) => syslog.deliver(alerts).await,
            Destination::Kafka(kafka) => kafka.deliver(alerts).await,
            Destination::Alertmanager(alertmanager) => alertmanager.deliver(alerts).await,
            Destination::Loki(loki) => loki.deliver(alerts).await,
        }
    }

    /// Whether a delivery is aborted after the sink's timeout. Only network destinations are: writes to files and standard output would
    /// remain incomplete, and the Kafka client has a timeout per record.
    pub(crate) fn has_timeout(&self) -> bool {
        !matches!(self, Destination::Output(_) | Destination::File(_) | Destination::Kafka(_))
    }

    /// Closes a file, so that the next delivery opens the path again.
    pub(crate) fn reopen(&mut self) {
        if let Destination::File(file) = self {
            file.close();
        }
    }
}

/// Maximum number of alerts in one delivery.
pub(crate) fn max_batch_len(kind: &Kind) -> usize {
    match kind {
        Kind::Http(http) => http.body.batch().0.max(1),
        Kind::Alertmanager(_) => alertmanager::MAX_ALERTS,
        Kind::Loki(_) => loki::MAX_ALERTS,
        Kind::Stdout(_) | Kind::File(_) | Kind::Syslog(_) | Kind::Kafka(_) => 256,
    }
}
