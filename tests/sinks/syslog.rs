//! Alerts to syslog receivers.

use std::time::Duration;

use pullwatch::internals::daemon::sink::{
    Facility, Format, Kind, SinkConfig, Syslog, TlsSettings, Transport,
};
use pullwatch::internals::text::escape::is_disruptive;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};

use crate::port::{free_port, listener};
use crate::rig::{HOSTILE, Memory, Rig, alert, alert_of, config, wait_until};
use crate::tls::Authority;

fn syslog(transport: Transport, format: Format) -> SinkConfig {
    let facility = Facility::Local3;
    config(Kind::Syslog(Syslog { transport, format, facility, ..Syslog::default() }))
}

/// Reads a message with its length before it.
async fn counted(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0;
    loop {
        match stream.read_u8().await.ok()? {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.ok()?;
    Some(String::from_utf8(message).unwrap())
}

fn check(message: &str, seq: i64) {
    // local3 is 19, warning is 4.
    assert!(message.starts_with("<156>1 2026-11-23T03:45:32.270783Z "), "{message}");
    assert!(message.contains(&format!("id=\"{seq:032x}\"")), "{message}");
    let json = &message[message.find("] {").unwrap() + 2..];
    assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["seq"], seq);
}

#[tokio::test]
async fn datagrams_are_shortened_where_they_must_be() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = receiver.local_addr().unwrap().to_string();
    let mut settings = syslog(Transport::Udp(address), Format::Falco);
    settings.max_message = Some(1000);
    let long = alert_of(2, "Secret Read", alert(1).priority, &"ä".repeat(2000));
    let rig = Rig::start(settings, &Memory::with([alert(1), long, alert(3)]));
    let mut buffer = vec![0; 65_536];
    for seq in 1..=3 {
        let length = receiver.recv(&mut buffer).await.unwrap();
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        if seq == 2 {
            assert!(length <= 1000 && message.contains(" bytes omitted]"), "{message}");
            check(message, seq);
        } else {
            check(message, seq);
        }
    }
    rig.reaches(3).await;
    assert_eq!(rig.count("truncated_total", None), 1);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_sent_again() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = syslog(Transport::Udp(address.to_string()), Format::Falco);
    let rig = Rig::start(settings, &Memory::with([alert(1), alert(2)]));
    wait_until(async || rig.count("failures_total", Some("connection")) > 0).await;
    assert_eq!(rig.memory.cursor(), 0);
    let receiver = UdpSocket::bind(address).await.unwrap();
    rig.reaches(2).await;
    let mut buffer = vec![0; 65_536];
    for seq in 1..=2 {
        let length = receiver.recv(&mut buffer).await.unwrap();
        check(std::str::from_utf8(&buffer[..length]).unwrap(), seq);
    }
    rig.stop().await.unwrap();
}

/// Whether the kernel knows for a connection from one port of this host to another that its peer has ended it.
fn has_learned_of_the_end(from: u16, to: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let state = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_it =
            columns[1].ends_with(&format!(":{from:04X}")) && columns[2].ends_with(&format!(":{to:04X}"));
        is_it.then(|| columns[3].to_owned())
    });
    // Established. Once it is ended, it waits to be closed, or is gone.
    state.is_none_or(|state| state != "01")
}

/// Waits until the sink can know that the receiver has ended a connection.
async fn learns_of_the_end(from: u16, to: u16) {
    wait_until(async || has_learned_of_the_end(from, to)).await;
    // The runtime asks the kernel what happened only when all of its tasks wait.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_anew() {
    let port = free_port();
    let listen = || {
        let listener = listener(port);
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    };
    let receiver = listen();
    let settings = syslog(Transport::Tcp(format!("127.0.0.1:{port}")), Format::Falco);
    let rig = Rig::start(settings, &Memory::with([alert(1), alert(2)]));
    let (mut stream, peer) = receiver.accept().await.unwrap();
    for seq in 1..=2 {
        check(&counted(&mut stream).await.unwrap(), seq);
    }
    rig.reaches(2).await;
    drop(stream);
    // Until the word of the end came, a write would go nowhere.
    learns_of_the_end(peer.port(), port).await;
    rig.add(alert(3));
    let (mut stream, peer) = receiver.accept().await.unwrap();
    check(&counted(&mut stream).await.unwrap(), 3);
    rig.reaches(3).await;
    drop((stream, receiver));
    learns_of_the_end(peer.port(), port).await;
    rig.add(alert(4));
    wait_until(async || rig.count("failures_total", Some("connection")) > 1).await;
    assert_eq!(rig.memory.cursor(), 3);
    let receiver = listen();
    let (mut stream, _) = receiver.accept().await.unwrap();
    check(&counted(&mut stream).await.unwrap(), 4);
    rig.reaches(4).await;
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_may_be_encrypted() {
    let authority = Authority::new();
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = receiver.local_addr().unwrap().to_string();
    let (certificate, key) = authority.sign("client");
    let nobody = TlsSettings { ca: Some(authority.ca()), ..TlsSettings::default() };
    let known = TlsSettings { certificate: Some(certificate), key: Some(key), ..nobody.clone() };
    let acceptor = authority.acceptor("127.0.0.1", true);
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = receiver.accept().await {
            // Who is not let in is closed on.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            while let Some(message) = counted(&mut stream).await {
                sender.send(message).unwrap();
            }
        }
    });
    let memory = Memory::with([alert(1)]);
    let rig = Rig::start(syslog(Transport::Tls(address.clone(), nobody), Format::Falco), &memory);
    let failures =
        || rig.count("failures_total", Some("tls")) + rig.count("failures_total", Some("connection"));
    wait_until(async || failures() > 0).await;
    assert_eq!(memory.cursor(), 0, "a receiver that wants no word from us has not heard one");
    rig.stop().await.unwrap();
    let rig = Rig::start(syslog(Transport::Tls(address, known), Format::Falco), &memory);
    rig.reaches(1).await;
    check(&messages.recv().await.unwrap(), 1);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn the_local_socket_may_be_of_either_kind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let rig = Rig::start(syslog(Transport::Unix(path.clone()), Format::Falco), &Memory::with([alert(1)]));
    wait_until(async || rig.count("failures_total", Some("connection")) > 0).await;
    let receiver = UnixDatagram::bind(&path).unwrap();
    let mut buffer = vec![0; 65_536];
    let length = receiver.recv(&mut buffer).await.unwrap();
    check(std::str::from_utf8(&buffer[..length]).unwrap(), 1);
    rig.reaches(1).await;
    // The daemon starts again, with a socket of the other kind.
    drop(receiver);
    std::fs::remove_file(&path).unwrap();
    let receiver = UnixListener::bind(&path).unwrap();
    rig.add(alert(2));
    rig.add(alert(3));
    let (stream, _) = receiver.accept().await.unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stream));
    for seq in 2..=3 {
        check(&lines.next_line().await.unwrap().unwrap(), seq);
    }
    rig.reaches(3).await;
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn hostile_text_stays_inside_its_message() {
    let hostile = alert_of(1, "Rule|\n=]", alert(1).priority, HOSTILE);
    for format in [Format::Falco, Format::Cef, Format::Text] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixListener::bind(&path).unwrap();
        let rig =
            Rig::start(syslog(Transport::Unix(path), format), &Memory::with([hostile.clone(), alert(2)]));
        let (stream, _) = receiver.accept().await.unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stream));
        for _ in 1..=2 {
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.starts_with("<156>1 ") && !line.chars().any(is_disruptive), "{line:?}");
        }
        rig.reaches(2).await;
        rig.stop().await.unwrap();
    }
}
