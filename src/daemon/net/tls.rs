//! TLS: certificate, key and the authority of clients, from files that may change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::{NetError, read};

/// Where certificates and keys are. All are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities one of which must have signed a client's certificate. Without it clients need none. Whoever has a certificate
    /// of theirs gets in, so the cluster's own authority is no good choice: every kubelet has one.
    pub client_ca: Option<PathBuf>,
}

/// A configuration that follows its files.
#[derive(Clone)]
pub(super) struct ReloadingTls {
    files: Tls,
    seen: [u8; 32],
    pub(super) config: RustlsConfig,
}

impl ReloadingTls {
    /// Reads the files.
    pub(super) fn load(files: Tls) -> Result<Self, NetError> {
        let (config, seen) = configure(&files)?;
        Ok(ReloadingTls { files, seen, config: RustlsConfig::from_config(Arc::new(config)) })
    }

    /// Reads the files again; gives whether they changed. New connections get the new certificate, old ones go on. While a
    /// certificate does not fit its key (one of two files is written) the old ones stay.
    pub(super) fn reload(&mut self) -> Result<bool, NetError> {
        if fingerprint(&self.files)? == self.seen {
            return Ok(false);
        }
        let (config, seen) = configure(&self.files)?;
        self.config.reload_from_config(Arc::new(config));
        self.seen = seen;
        Ok(true)
    }
}

fn fingerprint(files: &Tls) -> Result<[u8; 32], NetError> {
    let mut hash = Sha256::new();
    for path in [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten() {
        hash.update(Sha256::digest(read(path)?));
    }
    Ok(hash.finalize().into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let content = read(path)?;
    let wrong = |reason: String| NetError::Content { path: path.to_owned(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let all = all.map_err(|error| wrong(format!("no PEM: {error}")))?;
    if all.is_empty() {
        return Err(wrong("holds no certificate in PEM".to_owned()));
    }
    Ok(all)
}

fn configure(files: &Tls) -> Result<(ServerConfig, [u8; 32]), NetError> {
    let seen = fingerprint(files)?;
    let wrong = |path: &Path, reason: String| NetError::Content { path: path.to_owned(), reason };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| wrong(&files.key, format!("holds no private key in PEM: {error}")))?;
    // Named, not taken from the process: nobody has to install it first.
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
        .map_err(|error| wrong(&files.certificate, format!("does not go with its key: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, seen))
}
