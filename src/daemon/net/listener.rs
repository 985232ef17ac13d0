//! Serves a router on a port, with limits, TLS and reload of certificates and tokens.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::task::JoinHandle;

use super::NetError;
use super::connections::Connections;
use super::tls::{ReloadingTls, Tls};
use super::token::Token;

/// Maximum number of concurrent requests per HTTP/2 connection.
const MAX_STREAMS: u32 = 16;

/// Flow-control window of an HTTP/2 connection, in bytes.
const FLOW_CONTROL_WINDOW: u32 = 1 << 20;

#[derive(Debug)]
pub struct ListenerConfig {
    /// Port 0 chooses a free one.
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    /// Bearer token that clients must send. Its file is checked for changes.
    pub token: Option<Token>,
    /// How often files are checked for changes.
    pub reload_interval: Duration,
    pub connections: Connections,
}

/// A running listener.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    serving: JoinHandle<()>,
    reloading: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more connections, waits up to `grace` for open ones, and closes them.
    pub async fn stop(mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        // Ends after `grace` at the latest.
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
/// `on_reload` is called when a certificate or token file changed, with whether it was loaded.
///
/// # Errors
///
/// If the address is in use, or a file in the settings is invalid.
pub fn listen(
    port: ListenerConfig,
    router: Router,
    on_reload: impl Fn(bool) + Send + 'static,
) -> Result<Listener, NetError> {
    let ListenerConfig { address, tls, token, reload_interval, connections } = port;
    let tls = tls.map(ReloadingTls::load).transpose()?;
    let failed = |source| NetError::Bind { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let handle = Handle::new();
    let limits = connections.limits().clone();
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed)?
        .handle(handle.clone())
        .first_request_timeout(limits.first_request)
        .accept_error_handler(|peer: Option<&SocketAddr>, error| {
            tracing::debug!(?peer, %error, "connection refused");
        });
    let mut http1 = server.http_builder().http1();
    // This timeout also covers a kept-alive connection that waits for its next request.
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
        None => tokio::spawn(serve(bound, server.acceptor(connections).serve(router))),
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls.config.clone()).handshake_timeout(limits.handshake);
            tokio::spawn(serve(bound, server.acceptor(acceptor.acceptor(connections)).serve(router)))
        }
    };
    let reloading = (tls.is_some() || token.is_some())
        .then(|| tokio::spawn(reload_periodically(tls, token, reload_interval, bound, on_reload)));
    Ok(Listener { address: bound, handle, serving, reloading })
}

/// Serves until shutdown, and logs an error that ends it earlier.
async fn serve(address: SocketAddr, serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%address, %error, "listener failed; the port is closed");
    }
}

/// Checks certificate and token files until aborted.
async fn reload_periodically(
    mut tls: Option<ReloadingTls>,
    mut token: Option<Token>,
    interval: Duration,
    address: SocketAddr,
    on_reload: impl Fn(bool),
) {
    // A repeated error is logged once.
    let mut last_error = String::new();
    loop {
        tokio::time::sleep(interval).await;
        // Not on a serving thread, since files may be on a mount that hangs.
        let results = tokio::task::spawn_blocking(move || {
            let tls_changed = tls.as_mut().map_or(Ok(false), ReloadingTls::reload);
            let token_changed = token.as_mut().map_or(Ok(false), |token| token.reload());
            (tls, token, [tls_changed, token_changed])
        });
        let Ok((same_tls, same_token, results)) = results.await else { return };
        (tls, token) = (same_tls, same_token);
        let mut errors = Vec::new();
        for (what, result) in ["certificates", "token"].into_iter().zip(results) {
            match result {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%address, "reloaded {what}");
                    on_reload(true);
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        let errors = errors.join("; ");
        if errors != last_error {
            if !errors.is_empty() {
                tracing::warn!(%address, "reload failed, keeping the previous files: {errors}");
                on_reload(false);
            }
            last_error = errors;
        }
    }
}
