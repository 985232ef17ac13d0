//! Writes alerts to standard output.

use prometheus::IntCounter;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::config::Format;
use super::failure::{Failure, Reason, Remedy};
use super::format;
use crate::detection::alert::StoredAlert;

/// Writes lines to a writer whose reader may pause or disappear.
#[derive(Debug)]
pub(crate) struct Output<W> {
    writer: W,
    shape: Rendering,
    buffer: Vec<u8>,
    /// The last write may have ended in the middle of a line.
    ends_mid_line: bool,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(crate) fn new(writer: W, shape: Rendering) -> Self {
        Output { writer, shape, buffer: Vec::new(), ends_mid_line: false }
    }

    /// Writes all alerts.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        self.buffer.clear();
        if self.ends_mid_line {
            // Otherwise the next alert would be appended to the incomplete line, and both would be lost.
            self.buffer.push(b'\n');
        }
        self.ends_mid_line = true;
        let mut ends = Vec::with_capacity(alerts.len());
        let failure = write_lines(&self.shape, alerts, &mut self.buffer, &mut ends);
        let written = match self.writer.write_all(&self.buffer).await {
            Ok(()) => self.writer.flush().await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.ends_mid_line = false;
                failure.map_or(Ok(ends.len()), Err)
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                let detail = "the reader of standard output is gone (broken pipe)";
                Err(Failure { remedy: Remedy::End, ..Failure::transient(Reason::Io, detail) })
            }
            Err(error) => Err(Failure::io(&error)),
        }
    }
}

/// Appends alerts, each with a line break, up to the first one that cannot be rendered. Returns the failure of that one. Fills `ends` with
/// the end of each line.
pub(crate) fn write_lines(
    shape: &Rendering,
    alerts: &[StoredAlert],
    out: &mut Vec<u8>,
    ends: &mut Vec<usize>,
) -> Option<Failure> {
    for alert in alerts {
        match format::message(shape.format, alert, shape.max_len) {
            Ok((line, is_short)) => {
                out.extend_from_slice(&line);
                out.push(b'\n');
                shape.shortened.inc_by(u64::from(is_short));
                ends.push(out.len());
            }
            Err(failure) => return Some(failure.after(ends.len())),
        }
    }
    None
}

/// How a sink renders alerts.
#[derive(Clone, Debug)]
pub(crate) struct Rendering {
    pub(crate) format: Format,
    /// Maximum length of a message, in bytes.
    pub(crate) max_len: Option<usize>,
    /// Counts shortened messages.
    pub(crate) shortened: IntCounter,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::alert;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::unix::pipe;

    fn shape(format: Format) -> Rendering {
        Rendering { format, max_len: None, shortened: IntCounter::new("shortened", "-").unwrap() }
    }

    #[tokio::test]
    async fn writes_one_line_per_alert() {
        let (writer, mut reader) = pipe::pipe().unwrap();
        let mut output = Output::new(writer, shape(Format::Falco));
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
        let mut output = Output::new(writer, shape(Format::Falco));
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
        let failure = Output::new(writer, shape(Format::Text)).deliver(&[alert(1)]).await.unwrap_err();
        assert_eq!(failure.remedy, Remedy::End);
        assert!(failure.detail.contains("broken pipe"));
    }
}
