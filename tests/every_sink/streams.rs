//! Receivers without acknowledgements: syslog, standard output, files.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::Arc;
use std::time::Duration;

use crate::received::{Mood, Received};

/// Time after which a receiver looks at its mood again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits while the receiver reads nothing.
fn rest(received: &Received) {
    while matches!(received.mood(), Mood::Busy | Mood::Refuse) {
        std::thread::sleep(POLL_INTERVAL);
    }
    if received.mood() == Mood::Slow {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Accepts a syslog message, with its id in the structured data.
fn syslog(received: &Received, message: &[u8]) {
    match crate::text::syslog(&String::from_utf8_lossy(message)) {
        Ok((id, text)) => {
            received.accept(Some(&id), message);
            received.check_format(text);
        }
        Err(reason) => received.wrong(format!("{reason}: {}", String::from_utf8_lossy(message))),
    }
}

/// Syslog over TCP with octet counting. When it is down it ends its side of the connection and reads what is still on the way, as a
/// receiver does that is restarted in an orderly way: syslog has no acknowledgements.
pub fn tcp(received: Arc<Received>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, received) = (stream.unwrap(), received.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut is_open = true;
                loop {
                    rest(&received);
                    if is_open && received.mood() == Mood::Down {
                        let _ = stream.shutdown(Shutdown::Write);
                        is_open = false;
                    }
                    let mut length = Vec::new();
                    let Ok(1..) = reader.read_until(b' ', &mut length) else { return };
                    let Some(length) = String::from_utf8_lossy(&length).trim_end().parse().ok() else {
                        return received.wrong("no octet count");
                    };
                    let mut message = vec![0; length];
                    // A message that a kill cut off arrives again.
                    if reader.read_exact(&mut message).is_err() {
                        return;
                    }
                    syslog(&received, &message);
                }
            });
        }
    });
    port
}

/// Syslog over UDP. Datagrams get lost when the receiver is slow, so it always reads.
pub fn udp(received: Arc<Received>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer) {
            syslog(&received, &buffer[..length]);
        }
    });
    port
}

/// Syslog over a local socket: the kernel makes the sender wait.
pub fn unix(path: &Path, received: Arc<Received>) {
    let socket = UnixDatagram::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            rest(&received);
            match socket.recv(&mut buffer) {
                Ok(length) => syslog(&received, &buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return received.wrong(error.to_string()),
            }
        }
    });
}

/// Reads standard output to its end. A line that a kill cut off arrives again.
pub fn stdout(output: ChildStdout, received: Arc<Received>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            rest(&received);
            line.clear();
            let Ok(1..) = reader.read_until(b'\n', &mut line) else { return };
            if line.pop_if(|byte| *byte == b'\n').is_some() {
                received.accept_message(&line);
            }
        }
    })
}

/// Reads the lines of a file. Each kill may leave one line that ends early; the next starts a line of its own.
pub fn file(path: &Path, received: &Received, kills: usize) {
    let text = std::fs::read(path).unwrap();
    let mut broken = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        if broken < kills && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err() {
            broken += 1;
            continue;
        }
        received.accept_message(line);
    }
}
