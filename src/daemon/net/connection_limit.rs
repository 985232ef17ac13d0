//! Limits connections, in all and per address, and closes those whose client does not read its responses.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Limits for untrusted clients of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections. Further ones are closed at once.
    pub connections: usize,
    /// Concurrent connections per client address.
    pub connections_per_address: usize,
    /// Timeout of the TLS handshake.
    pub handshake: Duration,
    /// Maximum time until the first request of a connection arrived.
    pub first_request: Duration,
    /// An idle connection is closed after this time. Prometheus scrapes every minute at the latest, and an apiserver whose
    /// connection was closed opens another one.
    pub idle: Duration,
    /// A connection is closed if its client reads nothing of a response for this long.
    pub stalled: Duration,
    /// Maximum bytes of a request's line and headers.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            connections_per_address: 64,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            stalled: Duration::from_secs(30),
            header_bytes: 16 << 10,
        }
    }
}

/// Number of connections by address. Holds no more addresses than there are connections.
#[derive(Debug, Default)]
struct ConnectionCounts {
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

#[derive(Clone, Debug)]
pub(super) struct ConnectionLimiter {
    limits: Arc<Limits>,
    counts: Arc<ConnectionCounts>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: Limits) -> Self {
        ConnectionLimiter { limits: Arc::new(limits), counts: Arc::default() }
    }

    fn acquire(&self, address: IpAddr) -> Option<Permit> {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *taken;
        let here = by_address.get(&address).copied().unwrap_or(0);
        if *all >= self.limits.connections || here >= self.limits.connections_per_address {
            return None;
        }
        *all += 1;
        by_address.insert(address, here + 1);
        Some(Permit { counts: self.counts.clone(), address })
    }
}

/// One connection's share of the limits, released when it is dropped.
#[derive(Debug)]
struct Permit {
    counts: Arc<ConnectionCounts>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *taken;
        *all = all.saturating_sub(1);
        if let Some(here) = by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

impl<S> Accept<TcpStream, S> for ConnectionLimiter {
    type Stream = LimitedStream;
    type Service = S;
    type Future = Ready<io::Result<(LimitedStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.limit(stream).map(|stream| (stream, service)))
    }
}

impl ConnectionLimiter {
    fn limit(&self, stream: TcpStream) -> io::Result<LimitedStream> {
        let address = stream.peer_addr()?.ip();
        let Some(place) = self.acquire(address) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections"));
        };
        stream.set_nodelay(true)?;
        Ok(LimitedStream { stream, stalled: None, stall_timeout: self.limits.stalled, _place: place })
    }
}

/// A connection that is closed when its client reads nothing for too long.
#[derive(Debug)]
pub(super) struct LimitedStream {
    stream: TcpStream,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    stall_timeout: Duration,
    _place: Permit,
}

impl LimitedStream {
    fn check_stall<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let stall_timeout = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_timeout)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_stall(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.check_stall(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_stall(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
