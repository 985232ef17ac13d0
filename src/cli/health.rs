//! `pullwatch health`: queries the health of a running daemon. For containers and service managers without a shell or curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::Url;

use super::run::listen_of_environment;
use crate::daemon::config::Server;
use crate::daemon::sink::{Tls, TlsSettings, client_config_without_roots};

/// Check the health of a running daemon
///
/// Requests /healthz of the daemon's HTTP server: whether the process makes progress. With --ready, /readyz: whether it can
/// take events.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch health                                              the default address, 127.0.0.1:9417
  pullwatch health --config /etc/pullwatch/pullwatch.yaml       address and token of a configuration file
  pullwatch health --ready --ca ca.crt https://node-1:9417

Exit status: 0 healthy, 1 unhealthy or no answer, 2 error.")]
pub struct Health {
    /// URL of the daemon's HTTP server; default: the address of $PULLWATCH_LISTEN or --config, else http://127.0.0.1:9417
    url: Option<Url>,

    /// Configuration file of the daemon
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check readiness instead of liveness
    #[arg(long)]
    ready: bool,

    /// For https: certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// For https: name in the server's certificate, if it differs from the URL
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// Maximum time to wait for the answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    timeout: u64,
}

impl Health {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let server = self.server()?;
        let mut url = match &self.url {
            Some(url) => url.clone(),
            None => url_of(&server)?,
        };
        if !matches!(url.scheme(), "http" | "https") {
            bail!("invalid URL `{url}`: expected http://host:port or https://host:port");
        }
        url.set_path(if self.ready { "/readyz" } else { "/healthz" });
        let tls = if url.scheme() == "https" {
            let settings = TlsSettings {
                ca: self.ca.clone(),
                server_name: self.server_name.clone(),
                ..TlsSettings::default()
            };
            Tls::new(&settings)?.config().as_ref().clone()
        } else {
            client_config_without_roots()?
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(self.timeout))
            .build()?;
        let mut request = client.get(url.clone());
        if let Some(path) = &server.token_file {
            let token = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token file {}", path.display()))?;
            request = request.bearer_auth(token.trim());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        });
        let mut out = anstream::stdout().lock();
        let (text, code) = match answer {
            Ok((status, body)) => {
                (format!("{status}: {}", super::visible(body.trim())), u8::from(!status.is_success()))
            }
            Err(error) => (format!("no answer from {url}: {:#}", anyhow::Error::new(error.without_url())), 1),
        };
        std::io::Write::write_fmt(&mut out, format_args!("{text}\n"))?;
        Ok(ExitCode::from(code))
    }

    /// The server's settings in the configuration file, or the defaults; the environment's address takes precedence, as for `run`.
    fn server(&self) -> anyhow::Result<Server> {
        let mut server = match &self.config {
            None => Server::default(),
            Some(path) => {
                let (Some(config), _) = super::config::read(path)? else {
                    bail!("invalid configuration file: {}", path.display())
                };
                config.server.with_context(|| {
                    format!("{} disables the HTTP server (`server: false`)", path.display())
                })?
            }
        };
        if let Some(listen) = listen_of_environment()? {
            server.listen = listen;
        }
        Ok(server)
    }
}

/// The URL at which a server with these settings can be reached from its own host.
fn url_of(server: &Server) -> anyhow::Result<Url> {
    let mut address: SocketAddr = server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    Ok(Url::parse(&format!("{scheme}://{address}/"))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unspecified_listen_address_is_reached_over_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:9417", "http://127.0.0.1:9417/"),
            ("[::]:80", "http://[::1]/"),
            ("10.0.0.7:9417", "http://10.0.0.7:9417/"),
        ] {
            let server = Server { listen: listen.parse().unwrap(), ..Server::default() };
            assert_eq!(url_of(&server).unwrap().as_str(), expected);
        }
    }
}
