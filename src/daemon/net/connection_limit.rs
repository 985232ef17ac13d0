//! Applies the limits of a port to each accepted connection, and closes those whose client does not read its responses.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::connections::{Connections, Permit};

/// Limits for untrusted clients of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections. Further ones replace idle ones of unauthenticated clients, or are refused.
    pub connections: usize,
    /// Concurrent connections per client address (IPv6: network of 64 bits), likewise.
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

/// Closes a connection from outside.
#[derive(Clone, Debug)]
pub(super) struct Closer {
    /// Distinguishes connections from the same port.
    pub(super) number: u64,
    inner: Arc<CloserState>,
}

#[derive(Debug, Default)]
struct CloserState {
    is_closed: AtomicBool,
    /// Of the task that reads from or writes to the connection.
    waker: AtomicWaker,
}

impl Closer {
    pub(super) fn new(number: u64) -> Self {
        Closer { number, inner: Arc::default() }
    }

    pub(super) fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.waker.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.is_closed.load(Ordering::Acquire)
    }

    /// Fails if the connection was closed, otherwise wakes the task when it is.
    fn poll(&self, cx: &Context<'_>) -> io::Result<()> {
        self.inner.waker.register(cx.waker());
        if self.is_closed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = LimitedStream;
    type Service = S;
    type Future = Ready<io::Result<(LimitedStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(limit(self, stream).map(|stream| (stream, service)))
    }
}

fn limit(connections: &Connections, stream: TcpStream) -> io::Result<LimitedStream> {
    let Some((permit, closer)) = connections.open(stream.peer_addr()?) else {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections"));
    };
    stream.set_nodelay(true)?;
    let stall_timeout = connections.limits().stalled;
    Ok(LimitedStream { stream, stalled: None, stall_timeout, closer, _permit: permit })
}

/// A connection that is closed when its client reads nothing for too long, or when another one needs its place.
#[derive(Debug)]
pub struct LimitedStream {
    stream: TcpStream,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    stall_timeout: Duration,
    closer: Closer,
    _permit: Permit,
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
        self.closer.poll(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.closer.poll(cx)?;
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_stall(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closer.poll(cx)?;
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
        self.closer.poll(cx)?;
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_stall(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
