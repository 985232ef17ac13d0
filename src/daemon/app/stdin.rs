//! Reads audit events from standard input.

use std::io::Read as _;
use std::sync::mpsc::{self, Sender};

use crate::daemon::pipeline::Message;
use crate::daemon::source::open_lines::PendingLines;

const READ_BYTES: usize = 256 << 10;

/// Reads whole lines, as fast as the pipeline accepts them. A line longer than `max_record` bytes is passed on in parts. At the end of the
/// input the daemon stops if there is no other source.
pub(super) fn start(source: usize, max_record: usize, is_only_source: bool, inbox: Sender<Message>) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut pending = Vec::new();
        let mut open_lines = PendingLines::default();
        let mut block = vec![0; READ_BYTES];
        let (ready_for_next, is_ready) = mpsc::sync_channel(1);
        loop {
            let read = match input.read(&mut block) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot read standard input");
                    0
                }
            };
            pending.extend_from_slice(&block[..read]);
            let is_end = read == 0;
            let end = match memchr::memrchr(b'\n', &pending) {
                _ if is_end => pending.len(),
                Some(at) => at + 1,
                None if pending.len() > max_record => pending.len(),
                None => 0,
            };
            if end > 0 || is_end {
                let mut records: Vec<u8> = pending.drain(..end).collect();
                let mut is_complete = open_lines.push(0, &mut records);
                if is_end || open_lines.is_overdue(max_record) {
                    let mut rest = Vec::new();
                    is_complete |= open_lines.give_up(&mut rest);
                    records.append(&mut rest);
                }
                if is_complete
                    && (inbox.send(Message::Records(source, records, ready_for_next.clone())).is_err()
                        || is_ready.recv().is_err())
                {
                    return;
                }
            }
            if is_end {
                tracing::info!("end of standard input");
                if is_only_source {
                    let _ = inbox.send(Message::Stop);
                }
                return;
            }
        }
    });
}
