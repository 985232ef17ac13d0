//! Applies the limits of a port to each accepted connection, and closes connections whose clients do not read their responses.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::closer::Closer;
use super::connections::{Connections, Permit};

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

/// A connection that is closed when its client does not read for too long, or to make room for another connection.
#[derive(Debug)]
pub struct LimitedStream {
    stream: TcpStream,
    /// Runs while the client does not read.
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
