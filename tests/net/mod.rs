//! Certificates and clients for tests of servers.

// Not every test uses everything; in a test a panic is the right response.
#![allow(dead_code, clippy::unwrap_used)]

// A test may have it in `common` too.
#[allow(clippy::duplicate_mod)]
#[path = "../common/wait.rs"]
mod wait;

use pullwatch::internals::daemon::net::Tls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[allow(unused_imports)]
pub use wait::{WAIT_TIMEOUT, wait_until};

/// A certificate authority.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL treats a certificate with the name of its CA as self-signed.
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for `localhost`, as server or client.
    pub fn sign(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// Writes the files of a server.
pub fn write_tls(folder: &Path, identity: &Identity, client_ca: Option<&Authority>) -> Tls {
    let file = |name: &str, content: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    Tls {
        certificate: file("tls.crt", &identity.certificate),
        key: file("tls.key", &identity.key),
        client_ca: client_ca.map(|authority| file("ca.crt", &authority.pem)),
    }
}

/// Replaces a file at once: who reads it meanwhile sees the old or the new content.
pub fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn config(
    authority: Option<&Authority>,
    identity: Option<&Identity>,
    protocol: &[u8],
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(authority) = authority {
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    }
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

/// A client that opens a connection per request.
pub fn client() -> reqwest::Client {
    builder().tls_backend_preconfigured(config(None, None, b"http/1.1")).build().unwrap()
}

/// An HTTP/2 client without TLS.
pub fn http2_client() -> reqwest::Client {
    builder().tls_backend_preconfigured(config(None, None, b"h2")).http2_prior_knowledge().build().unwrap()
}

/// A TLS client.
pub fn tls_client(authority: &Authority, identity: Option<&Identity>, protocol: &str) -> reqwest::Client {
    builder()
        .tls_backend_preconfigured(config(Some(authority), identity, protocol.as_bytes()))
        .build()
        .unwrap()
}

fn builder() -> reqwest::ClientBuilder {
    // As an apiserver sends it.
    let json = reqwest::header::HeaderValue::from_static("application/json");
    let headers = [(reqwest::header::CONTENT_TYPE, json)].into_iter().collect();
    reqwest::Client::builder()
        .default_headers(headers)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .timeout(WAIT_TIMEOUT)
}
