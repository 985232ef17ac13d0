//! Starts the port for metrics, health checks and alerts.

use std::sync::Arc;

use super::Context;
use super::alert_log::StoreLog;
use super::status::{ConfiguredSinks, LoadedRules, Overview};
use crate::daemon::config::ServerTls;
use crate::daemon::net::Tls;
use crate::daemon::server::{Backend, Server, Settings};

pub(super) fn tls(tls: Option<&ServerTls>) -> Option<Tls> {
    tls.map(|tls| Tls {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
    })
}

/// Returns `None` if the configuration turns the server off.
pub(super) fn start(
    context: &Context<'_>,
    rules: LoadedRules,
    sinks: ConfiguredSinks,
) -> anyhow::Result<Option<Server>> {
    let Some(config) = &context.config.server else { return Ok(None) };
    let settings = Settings {
        address: config.listen,
        tls: tls(config.tls.as_ref()),
        hosts: config.hosts.clone(),
        token_file: config.token_file.clone(),
        ..Settings::default()
    };
    let backend = Backend {
        metrics: context.handles.metrics.clone(),
        alerts: Arc::new(StoreLog::new(context.state_dir.to_owned())),
        health: context.handles.status.clone(),
        status: Arc::new(Overview::new(
            context.config,
            context.state_dir.to_owned(),
            context.handles.metrics.clone(),
            context.handles.status.clone(),
            rules,
            sinks,
        )),
        latest_seq: context.latest_seq.clone(),
    };
    let server = Server::start(settings, backend)?;
    tracing::info!(address = %server.address(), "serving metrics, health and alerts");
    if !server.address().ip().to_canonical().is_loopback() && config.token_file.is_none() {
        tracing::warn!(
            address = %server.address(),
            "anyone who can reach this address can read alerts: set `server.token_file`, or listen on a loopback address"
        );
    }
    Ok(Some(server))
}
