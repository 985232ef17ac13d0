//! Connections to a syslog receiver over each transport.

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
use crate::daemon::sink::tls::{Tls, explained, server_name};

/// How long a datagram receiver's resolved address is used. Nothing else would show that the receiver moved.
const DNS_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// How long to wait for the server to reject the client certificate. With TLS 1.3, the client can write before that.
const TLS_REJECTION_TIMEOUT: Duration = Duration::from_millis(250);

/// Opens connections.
#[derive(Debug)]
pub(crate) enum Connector {
    Udp(String),
    Tcp(String),
    Tls(String, ServerName<'static>, Box<Tls>),
    /// Path of the local socket, datagram or stream.
    Unix(PathBuf),
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Connection {
    /// Contains the time of the name resolution.
    Udp(Instant, UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
}

impl Connector {
    /// Checks the settings.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(transport: &Transport) -> Result<Self, SettingsError> {
        Ok(match transport {
            Transport::Udp(address) => Connector::Udp(check_address(address)?.to_owned()),
            Transport::Tcp(address) => Connector::Tcp(check_address(address)?.to_owned()),
            Transport::Tls(address, settings) => {
                let host = check_address(address)?.rsplit_once(':').map_or("", |(host, _)| host);
                let name = server_name(host.trim_start_matches('[').trim_end_matches(']'))?;
                Connector::Tls(address.clone(), name, Box::new(Tls::new(settings)?))
            }
            Transport::Unix(path) => Connector::Unix(path.clone()),
        })
    }

    /// Reloads renewed certificates, and returns whether there were any.
    pub(crate) fn refresh(&mut self) -> bool {
        match self {
            Connector::Tls(_, _, tls) => tls.refresh(),
            _ => false,
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let connection = match self {
            Connector::Udp(address) => udp(address).await,
            Connector::Tcp(address) => tcp(address).await.map(Connection::Tcp),
            Connector::Tls(address, name, tls) => {
                let stream = tcp(address).await.map_err(|error| connect_failure(&error))?;
                let connector = TlsConnector::from(tls.config().clone());
                let stream = encrypted(connector.connect(name.clone(), stream)).await;
                return stream.map(|stream| Connection::Tls(Box::new(stream)));
            }
            Connector::Unix(path) => match UnixDatagram::unbound().and_then(|socket| {
                socket.connect(path)?;
                Ok(socket)
            }) {
                Ok(socket) => Ok(Connection::UnixDatagram(socket)),
                // The socket may be a stream socket instead; then the error of the second attempt is the relevant one.
                Err(error) => match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Connection::UnixStream(stream)),
                    Err(other) if other.kind() == io::ErrorKind::ConnectionRefused => Err(other),
                    Err(_) => Err(error),
                },
            },
        };
        connection.map_err(|error| connect_failure(&error))
    }
}

/// Checks that an address has a host and a port.
fn check_address(address: &str) -> Result<&str, SettingsError> {
    let parts = address.rsplit_once(':').filter(|(host, port)| {
        let is_one = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && is_one && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    parts.map(|_| address).ok_or_else(|| SettingsError::Address(address.to_owned()))
}

/// A failure to connect, for any reason.
fn connect_failure(error: &io::Error) -> Failure {
    Failure::transient(Reason::Connection, format!("cannot connect: {error}"))
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
        Some(inner) if inner.is::<rustls::Error>() => {
            Failure::transient(Reason::Tls, explained(error.to_string()))
        }
        _ => Failure::io(&error),
    };
    let mut stream = connect.await.map_err(failure)?;
    match tokio::time::timeout(TLS_REJECTION_TIMEOUT, closed(&mut stream)).await {
        Err(_) => Ok(stream),
        Ok(Some(error)) => Err(failure(error)),
        Ok(None) => Err(Failure::transient(Reason::Connection, "the receiver closed the connection at once")),
    }
}

/// Waits until a stream ends, and returns its error if there is one. Received bytes are ignored: syslog has no responses.
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

/// Whether a stream is open, as far as known. The first write after the receiver closed it would succeed, and the message would be lost.
async fn is_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut bytes = [0; 512];
    // A receiver that never stops sending is not usable.
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
    /// Whether the connection is usable, as far as known.
    pub(crate) async fn is_alive(&mut self) -> bool {
        match self {
            Connection::Udp(since, _) => since.elapsed() < DNS_REFRESH_INTERVAL,
            Connection::Tcp(stream) => is_open(stream).await,
            Connection::Tls(stream) => is_open(stream).await,
            Connection::UnixDatagram(_) => true,
            Connection::UnixStream(stream) => is_open(stream).await,
        }
    }

    /// Whether it is a stream, on which messages are framed.
    pub(crate) fn is_stream(&self) -> bool {
        !matches!(self, Connection::Udp(..) | Connection::UnixDatagram(_))
    }

    /// Appends a message with the transport's framing.
    pub(crate) fn frame(&self, message: &[u8], out: &mut Vec<u8>) {
        if matches!(self, Connection::UnixStream(_)) {
            // The only framing that local daemons support. Messages contain no line breaks.
            out.extend_from_slice(message);
            out.push(b'\n');
        } else {
            out.extend_from_slice(itoa::Buffer::new().format(message.len()).as_bytes());
            out.push(b' ');
            out.extend_from_slice(message);
        }
    }

    /// Writes to a stream.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => write(stream, bytes).await,
            Connection::Tls(stream) => write(stream, bytes).await,
            Connection::UnixStream(stream) => write(stream, bytes).await,
            Connection::Udp(..) | Connection::UnixDatagram(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether send errors refer to datagrams sent earlier.
    pub(crate) fn has_deferred_errors(&self) -> bool {
        matches!(self, Connection::Udp(..))
    }

    /// The error of a datagram sent earlier, if it has arrived, such as a refused connection.
    pub(crate) fn deferred_error(&self) -> Option<io::Error> {
        match self {
            Connection::Udp(_, socket) => socket.take_error().unwrap_or_else(Some),
            _ => None,
        }
    }

    /// Sends a datagram.
    pub(crate) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Connection::Udp(_, socket) => socket.send(message).await.map(|_| ()),
            Connection::UnixDatagram(socket) => socket.send(message).await.map(|_| ()),
            Connection::Tcp(_) | Connection::Tls(_) | Connection::UnixStream(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

/// Whether a message was too long for a datagram (EMSGSIZE, which has no `ErrorKind`).
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    let number = if cfg!(target_os = "linux") { 90 } else { 40 };
    error.raw_os_error() == Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["a:514", "10.0.0.1:514", "[::1]:514"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ":514", "a:", "a:0", "a:65536", "::1:514", "a:b"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
