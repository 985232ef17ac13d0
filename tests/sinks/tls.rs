//! Certificates made here, and sinks that trust them or not.

use std::path::PathBuf;
use std::sync::Arc;

use pullwatch::internals::daemon::sink::{Http, Kind, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::http::to;
use crate::rig::{Memory, Rig, alert, config, wait_until};
use crate::server::Server;

/// An authority, and the files of what it signed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, directory }
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Files of a certificate for that name and of its key.
    pub fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("pem"), path("key"))
    }

    /// A server of that name, which wants certificates of this authority or none.
    pub fn acceptor(&self, name: &str, mutual: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.sign(name);
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

fn sink(server: &Server, tls: TlsSettings) -> Kind {
    Kind::Http(Http { tls, ..to(&server.url().replace("http:", "https:")) })
}

#[tokio::test]
async fn a_server_is_trusted_by_authority_and_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start_with(Some(ours.acceptor("127.0.0.1", false)), []).await;
    let other = Server::start_with(Some(ours.acceptor("sink.example", false)), []).await;
    let tls = TlsSettings { ca: Some(ours.ca()), ..TlsSettings::default() };
    let named = TlsSettings { server_name: Some("sink.example".to_owned()), ..tls.clone() };
    for (server, tls) in [(&server, &tls), (&other, &named)] {
        let rig = Rig::start(config(sink(server, tls.clone())), &Memory::with([alert(1)]));
        rig.reaches(1).await;
        rig.stop().await.unwrap();
        assert_eq!(server.requests().len(), 1);
    }
    let stranger = TlsSettings { ca: Some(theirs.ca()), ..TlsSettings::default() };
    // Not of that authority, not of that name, not of that other name.
    for (server, tls) in [(&server, stranger), (&other, tls), (&server, named)] {
        let rig = Rig::start(config(sink(server, tls)), &Memory::with([alert(1)]));
        wait_until(async || rig.count("failures_total", Some("tls")) > 0).await;
        rig.stop().await.unwrap();
        assert_eq!(server.requests().len(), 1, "nothing more was sent");
    }
}

#[tokio::test]
async fn a_server_may_want_to_know_who_we_are() {
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.acceptor("127.0.0.1", true)), []).await;
    let nobody = TlsSettings { ca: Some(authority.ca()), ..TlsSettings::default() };
    let (certificate, key) = authority.sign("client");
    let known = TlsSettings { certificate: Some(certificate), key: Some(key), ..nobody.clone() };
    let rig = Rig::start(config(sink(&server, nobody)), &Memory::with([alert(1)]));
    let failures =
        || rig.count("failures_total", Some("tls")) + rig.count("failures_total", Some("connection"));
    wait_until(async || failures() > 0).await;
    assert_eq!(rig.memory.cursor(), 0);
    rig.stop().await.unwrap();
    let rig = Rig::start(config(sink(&server, known)), &Memory::with([alert(1)]));
    rig.reaches(1).await;
    rig.stop().await.unwrap();
    assert_eq!(server.requests().len(), 1);
}

/// A listener for axum that encrypts.
struct Encrypted(tokio::net::TcpListener, TlsAcceptor);

impl axum::serve::Listener for Encrypted {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn a_server_may_speak_http_2() {
    let authority = Authority::new();
    let mut settings = ServerConfig::clone(authority.acceptor("127.0.0.1", false).config());
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/in", listener.local_addr().unwrap());
    let versions = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = versions.clone();
    let router = axum::Router::new().route(
        "/in",
        axum::routing::post(async move |request: axum::extract::Request| {
            seen.lock().unwrap().push(request.version());
        }),
    );
    let listener = Encrypted(listener, TlsAcceptor::from(Arc::new(settings)));
    tokio::spawn(async { axum::serve(listener, router).await });
    let tls = TlsSettings { ca: Some(authority.ca()), ..TlsSettings::default() };
    let rig = Rig::start(config(Kind::Http(Http { tls, ..to(&url) })), &Memory::with([alert(1), alert(2)]));
    rig.reaches(2).await;
    assert_eq!(*versions.lock().unwrap(), [axum::http::Version::HTTP_2; 2]);
    rig.stop().await.unwrap();
}

#[test]
fn files_that_are_no_certificates_are_named_and_not_quoted() {
    let metrics = pullwatch::internals::daemon::sink::SinkMetrics::new(
        &pullwatch::internals::daemon::metrics::Metrics::new(&[]).unwrap(),
    );
    let authority = Authority::new();
    let (certificate, key) = authority.sign("client");
    let wrong = authority.ca().with_file_name("wrong.pem");
    std::fs::write(&wrong, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n").unwrap();
    let ca = Some(authority.ca());
    let cases = [
        TlsSettings { ca: Some(wrong.clone()), ..TlsSettings::default() },
        TlsSettings { ca: Some("/nowhere/ca.pem".into()), ..TlsSettings::default() },
        TlsSettings { ca: ca.clone(), certificate: Some(certificate.clone()), ..TlsSettings::default() },
        TlsSettings {
            ca: ca.clone(),
            certificate: Some(certificate.clone()),
            key: Some(wrong),
            server_name: None,
        },
        TlsSettings {
            ca: ca.clone(),
            certificate: Some(authority.ca()),
            key: Some(key.clone()),
            server_name: None,
        },
        TlsSettings { ca, certificate: None, key: None, server_name: Some("not a name".into()) },
    ];
    for tls in cases {
        let config = config(Kind::Http(Http { tls: tls.clone(), ..to("https://127.0.0.1/") }));
        let error = pullwatch::internals::daemon::sink::Sink::new(config, &metrics).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        println!("{error}");
    }
}
