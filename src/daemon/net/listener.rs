//! A port that is served until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::task::JoinHandle;

use super::NetError;
use super::connection_limit::{ConnectionLimiter, Limits};
use super::tls::{ReloadingTls, Tls};
use super::token::Token;

/// Requests at one time on one connection of HTTP/2. An apiserver sends few batches at once.
const MAX_STREAMS: u32 = 16;

/// So many bytes of HTTP/2 may be under way to us, on one connection.
const FLOW_CONTROL_WINDOW: u32 = 1 << 20;

/// What a port is opened with.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Where; port 0 takes any that is free.
    pub address: SocketAddr,
    /// With TLS or without.
    pub tls: Option<Tls>,
    /// The token whose file is looked at now and then.
    pub token: Option<Token>,
    /// How often files are looked at.
    pub reload_interval: Duration,
    /// What strangers may take.
    pub limits: Limits,
}

/// A port that is being served.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    serving: JoinHandle<()>,
    reloading: Option<JoinHandle<()>>,
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, gives those that are there so much time, and closes them.
    pub async fn stop(mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        // It ends by itself, after the grace at the latest.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(reloading) = &self.reloading {
            reloading.abort();
        }
    }
}

/// Opens a port and serves it in the background. Must be called within a tokio runtime.
///
/// `on_reload` hears of each change of a file of certificates or tokens: whether it was taken.
///
/// # Errors
/// When the address is taken, or a file of the settings is no good.
pub fn listen(
    port: ListenerConfig,
    router: Router,
    on_reload: impl Fn(bool) + Send + 'static,
) -> Result<Listener, NetError> {
    let ListenerConfig { address, tls, token, reload_interval, limits } = port;
    let tls = tls.map(ReloadingTls::load).transpose()?;
    let failed = |source| NetError::Bind { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let handle = Handle::new();
    let limiter = ConnectionLimiter::new(limits.clone());
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed)?
        .handle(handle.clone())
        .first_request_timeout(limits.first_request)
        .accept_error_handler(|peer: Option<&SocketAddr>, error| {
            tracing::debug!(?peer, %error, "a connection was not let in");
        });
    let mut http1 = server.http_builder().http1();
    // The timer of the header also runs while a kept connection waits for its next request.
    http1.header_read_timeout(limits.idle).max_buf_size(limits.header_bytes.max(8 << 10));
    let mut http2 = server.http_builder().http2();
    let header_list = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    http2
        .max_header_list_size(header_list)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(FLOW_CONTROL_WINDOW)
        .initial_connection_window_size(FLOW_CONTROL_WINDOW)
        .keep_alive_interval(limits.idle / 3)
        .keep_alive_timeout(limits.stalled);
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = match &tls {
        None => tokio::spawn(ended(bound, server.acceptor(limiter).serve(router))),
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls.config.clone()).handshake_timeout(limits.handshake);
            tokio::spawn(ended(bound, server.acceptor(acceptor.acceptor(limiter)).serve(router)))
        }
    };
    let reloading = (tls.is_some() || token.is_some())
        .then(|| tokio::spawn(reload_periodically(tls, token, reload_interval, bound, on_reload)));
    Ok(Listener { address: bound, handle, serving, reloading })
}

/// Says why a port is no longer served, where it is not because it was told to stop.
async fn ended(address: SocketAddr, serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%address, %error, "the port is closed");
    }
}

/// Reads certificates and tokens again, for ever.
async fn reload_periodically(
    mut tls: Option<ReloadingTls>,
    mut token: Option<Token>,
    every: Duration,
    address: SocketAddr,
    on_reload: impl Fn(bool),
) {
    // An error is told once, not every ten seconds for a year.
    let mut told = String::new();
    loop {
        tokio::time::sleep(every).await;
        // Files may lie on a mount that hangs: not on a thread that serves.
        let looked = tokio::task::spawn_blocking(move || {
            let tls_changed = tls.as_mut().map_or(Ok(false), ReloadingTls::reload);
            let token_changed = token.as_mut().map_or(Ok(false), |token| token.reload());
            (tls, token, [tls_changed, token_changed])
        });
        let Ok((same_tls, same_token, results)) = looked.await else { return };
        (tls, token) = (same_tls, same_token);
        let mut wrong = Vec::new();
        for (what, result) in ["certificates", "the token"].into_iter().zip(results) {
            match result {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%address, "{what} changed, and were read again");
                    on_reload(true);
                }
                Err(error) => wrong.push(error.to_string()),
            }
        }
        let wrong = wrong.join("; ");
        if wrong != told {
            if !wrong.is_empty() {
                tracing::warn!(%address, "going on with what was read before: {wrong}");
                on_reload(false);
            }
            told = wrong;
        }
    }
}
