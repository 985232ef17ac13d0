//! Writes alerts to standard output.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::config::Format;
use super::failure::{Failure, Reason, Remedy};
use super::text;
use crate::detection::alert::StoredAlert;

/// Writes lines to a writer whose reader may pause or go away.
#[derive(Debug)]
pub(crate) struct Output<W> {
    writer: W,
    format: Format,
    buffer: Vec<u8>,
    /// The last write may have ended inside a line.
    ends_mid_line: bool,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(crate) fn new(writer: W, format: Format) -> Self {
        Output { writer, format, buffer: Vec::new(), ends_mid_line: false }
    }

    /// Writes all alerts.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        self.buffer.clear();
        if self.ends_mid_line {
            // Otherwise the next alert would be read as the rest of that line, and both be lost.
            self.buffer.push(b'\n');
        }
        self.ends_mid_line = true;
        for alert in alerts {
            write_alert(self.format, alert, &mut self.buffer);
        }
        let written = match self.writer.write_all(&self.buffer).await {
            Ok(()) => self.writer.flush().await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.ends_mid_line = false;
                Ok(alerts.len())
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                let detail = "the reader of standard output is gone (broken pipe)";
                Err(Failure { remedy: Remedy::End, ..Failure::transient(Reason::Io, detail) })
            }
            Err(error) => Err(Failure::io(&error)),
        }
    }
}

/// Appends an alert and a line break.
pub(crate) fn write_alert(format: Format, alert: &StoredAlert, out: &mut Vec<u8>) {
    match format {
        Format::Auto | Format::Json => {
            out.extend_from_slice(&alert.json);
            out.push(b'\n');
        }
        Format::Text => text::write_line(alert, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::alert;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::unix::pipe;

    #[tokio::test]
    async fn writes_one_line_per_alert() {
        let (writer, mut reader) = pipe::pipe().unwrap();
        let mut output = Output::new(writer, Format::Json);
        assert_eq!(output.deliver(&[alert(1), alert(2)]).await.unwrap(), 2);
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        let expected: Vec<_> = [1, 2].map(|seq| String::from_utf8(alert(seq).json).unwrap()).into();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn starts_a_new_line_after_a_partial_write() {
        let (writer, mut reader) = tokio::io::duplex(10);
        let mut output = Output::new(writer, Format::Json);
        let alerts = [alert(1)];
        let cut = tokio::select! {
            biased;
            _ = output.deliver(&alerts) => false,
            () = std::future::ready(()) => true,
        };
        assert!(cut);
        let read = tokio::spawn(async move {
            let mut text = String::new();
            reader.read_to_string(&mut text).await.unwrap();
            text
        });
        output.deliver(&alerts).await.unwrap();
        drop(output);
        let text = read.await.unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].as_bytes(), alert(1).json);
    }

    #[tokio::test]
    async fn a_broken_pipe_ends_the_sink() {
        let (writer, reader) = pipe::pipe().unwrap();
        drop(reader);
        let failure = Output::new(writer, Format::Text).deliver(&[alert(1)]).await.unwrap_err();
        assert_eq!(failure.remedy, Remedy::End);
        assert!(failure.detail.contains("broken pipe"));
    }
}
