//! TLS of a server: certificate, key and client CA, loaded from files that may change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::NetError;
use super::watched_files::{WatchedFiles, read};

/// Paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// CA certificates against which client certificates are verified; without it, clients need no certificate. Every certificate issued by
    /// this CA is accepted, so the cluster's own CA is a bad choice: every kubelet has a certificate issued by it.
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    fn paths(&self) -> Vec<PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// A TLS configuration that is rebuilt when its files change.
#[derive(Clone)]
pub(super) struct ReloadingTls {
    files: Tls,
    watched: WatchedFiles,
    pub(super) config: RustlsConfig,
}

impl ReloadingTls {
    pub(super) fn load(files: Tls) -> Result<Self, NetError> {
        let watched = WatchedFiles::new(files.paths())?;
        let config = RustlsConfig::from_config(Arc::new(configure(&files)?));
        Ok(ReloadingTls { files, watched, config })
    }

    /// Reads the files again, and returns whether they changed. New connections use the new certificate. If a certificate does not match
    /// its key (because only one of the two files was written yet), the old ones stay in use.
    pub(super) fn reload(&mut self) -> Result<bool, NetError> {
        let files = &self.files;
        let Some(config) = self.watched.rebuild(|| configure(files))? else { return Ok(false) };
        self.config.reload_from_config(Arc::new(config));
        Ok(true)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let content = read(path)?;
    let wrong = |reason: String| NetError::Content { path: path.to_owned(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let all = all.map_err(|error| wrong(format!("invalid PEM: {error}")))?;
    if all.is_empty() {
        return Err(wrong("contains no PEM certificate".to_owned()));
    }
    Ok(all)
}

fn configure(files: &Tls) -> Result<ServerConfig, NetError> {
    let wrong = |path: &Path, reason: String| NetError::Content { path: path.to_owned(), reason };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| wrong(&files.key, format!("contains no PEM private key: {error}")))?;
    // Explicit, because the process may have no default provider installed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.certificate, format!("certificate and key do not match: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
