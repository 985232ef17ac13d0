//! The way to a syslog receiver.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::daemon::sink::config::Transport;
use crate::daemon::sink::error::SettingsError;
use crate::daemon::sink::failure::{Failure, Reason};
use crate::daemon::sink::tls::{Tls, server_name};

/// The name of a receiver of datagrams is last_check up again after so long: nothing else would tell that it moved.
const DNS_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// A server says that it refuses our certificate only after TLS 1.3 lets us write; so long it is given to say so.
const TLS_REJECTION_TIMEOUT: Duration = Duration::from_millis(250);

/// How to get a connection.
#[derive(Debug)]
pub enum Connector {
    /// Datagrams over a network.
    Udp(String),
    /// A stream.
    Tcp(String),
    /// An encrypted stream.
    Tls(String, ServerName<'static>, Box<Tls>),
    /// The local socket.
    Unix(PathBuf),
}

/// A connection.
#[derive(Debug)]
pub enum Connection {
    /// Since when, and where to.
    Udp(Instant, UdpSocket),
    /// A stream.
    Tcp(TcpStream),
    /// An encrypted stream.
    Tls(Box<TlsStream<TcpStream>>),
    /// Local datagrams.
    UnixDatagram(UnixDatagram),
    /// A local stream.
    UnixStream(UnixStream),
}

impl Connector {
    /// Checks the settings.
    ///
    /// # Errors
    /// When they cannot work.
    pub fn new(transport: &Transport) -> Result<Self, SettingsError> {
        Ok(match transport {
            Transport::Udp(address) => Connector::Udp(checked(address)?.to_owned()),
            Transport::Tcp(address) => Connector::Tcp(checked(address)?.to_owned()),
            Transport::Tls(address, settings) => {
                let host = checked(address)?.rsplit_once(':').map_or("", |(host, _)| host);
                let name = server_name(host.trim_start_matches('[').trim_end_matches(']'))?;
                Connector::Tls(address.clone(), name, Box::new(Tls::new(settings)?))
            }
            Transport::Unix(path) => Connector::Unix(path.clone()),
        })
    }

    /// Whether there is something new about how to connect.
    pub fn refresh(&mut self) -> bool {
        match self {
            Connector::Tls(_, _, tls) => tls.refresh(),
            _ => false,
        }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let connection = match self {
            Connector::Udp(address) => udp(address).await,
            Connector::Tcp(address) => tcp(address).await.map(Connection::Tcp),
            Connector::Tls(address, name, tls) => {
                let stream = tcp(address).await.map_err(|error| unreached(&error))?;
                let connector = TlsConnector::from(tls.config().clone());
                let stream = encrypted(connector.connect(name.clone(), stream)).await;
                return stream.map(|stream| Connection::Tls(Box::new(stream)));
            }
            Connector::Unix(path) => match UnixDatagram::unbound().and_then(|socket| {
                socket.connect(path)?;
                Ok(socket)
            }) {
                Ok(socket) => Ok(Connection::UnixDatagram(socket)),
                // It may be of the other kind; then that attempt tells what is wrong.
                Err(error) => match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Connection::UnixStream(stream)),
                    Err(other) if other.kind() == io::ErrorKind::ConnectionRefused => Err(other),
                    Err(_) => Err(error),
                },
            },
        };
        connection.map_err(|error| unreached(&error))
    }
}

/// An address with a host and a port.
fn checked(address: &str) -> Result<&str, SettingsError> {
    let parts = address.rsplit_once(':').filter(|(host, port)| {
        let is_one = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    parts.map(|_| address).ok_or_else(|| SettingsError::Address(address.to_owned()))
}

/// Whatever stands in the way of a connection, there is none.
fn unreached(error: &io::Error) -> Failure {
    Failure::transient(Reason::Connection, format!("no connection: {error}"))
}

async fn udp(address: &str) -> io::Result<Connection> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        let from: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let attempt = async {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        match attempt.await {
            Ok(socket) => return Ok(Connection::Udp(Instant::now(), socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn encrypted(connect: tokio_rustls::Connect<TcpStream>) -> Result<TlsStream<TcpStream>, Failure> {
    let failure = |error: io::Error| match error.get_ref() {
        Some(inner) if inner.is::<rustls::Error>() => Failure::transient(Reason::Tls, &error),
        _ => Failure::io(&error),
    };
    let mut stream = connect.await.map_err(failure)?;
    match tokio::time::timeout(TLS_REJECTION_TIMEOUT, closed(&mut stream)).await {
        Err(_) => Ok(stream),
        Ok(Some(error)) => Err(failure(error)),
        Ok(None) => Err(Failure::transient(Reason::Connection, "the receiver hung up at once")),
    }
}

/// Waits until a stream ends, well or badly. What a receiver says is passed over: syslog has no answers.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) -> Option<io::Error> {
    let mut bytes = [0; 512];
    loop {
        match tokio::io::AsyncReadExt::read(stream, &mut bytes).await {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(error),
        }
    }
}

/// Whether a stream is open as far as is known at this moment. Writing to one that the receiver closed would work once, and the
/// message be lost.
async fn is_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut bytes = [0; 512];
    // A receiver that talks without an end is not listening.
    for _ in 0..64 {
        let poll = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut bytes);
            Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Pending => Some(true),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => None,
                Poll::Ready(_) => Some(false),
            })
        });
        if let Some(open) = poll.await {
            return open;
        }
    }
    false
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

impl Connection {
    /// Whether it is of use still, as far as can be told.
    pub async fn is_alive(&mut self) -> bool {
        match self {
            Connection::Udp(since, _) => since.elapsed() < DNS_REFRESH_INTERVAL,
            Connection::Tcp(stream) => is_open(stream).await,
            Connection::Tls(stream) => is_open(stream).await,
            Connection::UnixDatagram(_) => true,
            Connection::UnixStream(stream) => is_open(stream).await,
        }
    }

    /// Whether messages are written one after the other.
    pub fn is_stream(&self) -> bool {
        !matches!(self, Connection::Udp(..) | Connection::UnixDatagram(_))
    }

    /// Appends a message so that the receiver sees where it ends.
    pub fn frame(&self, message: &[u8], out: &mut Vec<u8>) {
        if matches!(self, Connection::UnixStream(_)) {
            // Local daemons know nothing else. No message holds a line break.
            out.extend_from_slice(message);
            out.push(b'\n');
        } else {
            out.extend_from_slice(itoa::Buffer::new().format(message.len()).as_bytes());
            out.push(b' ');
            out.extend_from_slice(message);
        }
    }

    /// Writes to a stream.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => write(stream, bytes).await,
            Connection::Tls(stream) => write(stream, bytes).await,
            Connection::UnixStream(stream) => write(stream, bytes).await,
            Connection::Udp(..) | Connection::UnixDatagram(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether errors of sending are of what was sent earlier.
    pub fn is_late(&self) -> bool {
        matches!(self, Connection::Udp(..))
    }

    /// What came back of datagrams that were sent, if it is here already: that nobody listens, perhaps.
    pub fn late_error(&self) -> Option<io::Error> {
        match self {
            Connection::Udp(_, socket) => socket.take_error().unwrap_or_else(Some),
            _ => None,
        }
    }

    /// Sends a datagram.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Connection::Udp(_, socket) => socket.send(message).await.map(|_| ()),
            Connection::UnixDatagram(socket) => socket.send(message).await.map(|_| ()),
            Connection::Tcp(_) | Connection::Tls(_) | Connection::UnixStream(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

/// Whether a message was too long for a datagram: EMSGSIZE, for which the standard library has no word.
pub fn is_too_long(error: &io::Error) -> bool {
    let number = if cfg!(target_os = "linux") { 90 } else { 40 };
    error.raw_os_error() == Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["a:514", "10.0.0.1:514", "[::1]:514"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ":514", "a:", "a:0", "a:65536", "::1:514", "a:b"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
