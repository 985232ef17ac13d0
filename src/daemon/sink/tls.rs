//! TLS of all sinks: trusted authorities, client certificate, and reloading of renewed files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::config::TlsSettings;
use super::error::TlsError;
use crate::daemon::net::watched_files::WatchedFiles;

/// Minimum time between checks for renewed files. Certificates are renewed days before they expire.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// TLS settings, and the client configuration built from their files.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: TlsSettings,
    config: Arc<ClientConfig>,
    watched: WatchedFiles,
    last_check: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or has the wrong content.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let paths = [&settings.ca, &settings.certificate, &settings.key];
        let watched = WatchedFiles::new(paths.into_iter().flatten().cloned().collect())?;
        let config = Arc::new(client(settings)?);
        Ok(Tls { settings: settings.clone(), config, watched, last_check: Instant::now() })
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Reloads the files if they changed, and returns whether the configuration is new. Invalid files, such as half-written ones,
    /// change nothing.
    pub(crate) fn refresh(&mut self) -> bool {
        if self.last_check.elapsed() < RELOAD_INTERVAL {
            return false;
        }
        self.last_check = Instant::now();
        self.reload_if_changed()
    }

    fn reload_if_changed(&mut self) -> bool {
        let settings = &self.settings;
        match self.watched.rebuild(|| client(settings)) {
            Ok(None) => false,
            Ok(Some(config)) => {
                self.config = Arc::new(config);
                true
            }
            Err(error) => {
                // At most once per RELOAD_INTERVAL.
                tracing::warn!(%error, "changed TLS files are invalid; the previous certificates stay in use");
                false
            }
        }
    }
}

fn client(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    // Explicit: the process may have no default provider.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(settings.ca.as_deref())?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| TlsError::Other(error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match &settings.server_name {
        None => verifier,
        Some(name) => Arc::new(ServerNameOverride { name: server_name(name)?, verifier }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Other(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&settings.certificate, &settings.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, &error))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| TlsError::File { path: key.clone(), reason: error.to_string() })
        }
        _ => Err(TlsError::IncompleteKeyPair),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })?;
            }
        }
        // System stores contain certificates that cannot be parsed; these are skipped.
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

/// The certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::File { path: path.to_owned(), reason: "contains no certificate".to_owned() });
    }
    Ok(certificates)
}

/// An error in a PEM file. The message of the library may quote the file, which may be a key, so it is not used.
fn pem_error(path: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    use rustls_pki_types::pem::Error;
    let reason = match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "contains no PEM section of the expected kind".to_owned(),
        _ => "is not valid PEM".to_owned(),
    };
    TlsError::File { path: path.to_owned(), reason }
}

/// Parses the name or address of a server.
///
/// # Errors
/// When it is neither.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
}

/// Verifies the certificate against a name other than that of the connection. Everything else is verified as usual.
#[derive(Debug)]
struct ServerNameOverride {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ServerNameOverride {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(certificate, between, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Explains a TLS error and how to resolve it, based on the error text of rustls.
const EXPLANATIONS: [(&str, &str); 7] = [
    (
        "CaUsedAsEndEntity",
        "the receiver presents a certificate of an authority as its own, as self-signed certificates often are: issue one with \
         CA:FALSE (openssl req -x509 -addext basicConstraints=CA:FALSE), and name it or its authority in `tls.ca`",
    ),
    (
        "UnknownIssuer",
        "the receiver's certificate was issued by an authority that is not trusted: name that authority in `tls.ca`",
    ),
    (
        "NotValidForName",
        "the receiver's certificate is for other names: set `tls.server_name`, or use one of them in the address",
    ),
    ("Expired", "the receiver's certificate has expired, or the clock of this machine is wrong"),
    ("NotValidYet", "the receiver's certificate is not valid yet, or the clock of this machine is wrong"),
    (
        "CertificateRequired",
        "the receiver requires a client certificate: set `tls.certificate` and `tls.key`",
    ),
    ("InvalidContentType", "the receiver does not speak TLS on this port"),
];

/// Appends an explanation to the text of an error.
pub(crate) fn explained(detail: String) -> String {
    match EXPLANATIONS.iter().find(|(word, _)| detail.contains(word)) {
        Some((_, explanation)) => format!("{explanation} ({detail})"),
        None => detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_renewed_certificates_but_not_half_written_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let authority = |names: usize| {
            let names = (0..names).map(|i| format!("name{i}.example")).collect::<Vec<_>>();
            rcgen::generate_simple_self_signed(names).unwrap().cert.pem()
        };
        std::fs::write(&path, authority(1)).unwrap();
        let mut tls = Tls::new(&TlsSettings { ca: Some(path.clone()), ..TlsSettings::default() }).unwrap();
        let first = tls.config().clone();
        assert!(!tls.reload_if_changed());
        let renewed = authority(9);
        std::fs::write(&path, &renewed[..renewed.len() / 2]).unwrap();
        assert!(!tls.reload_if_changed());
        assert!(Arc::ptr_eq(tls.config(), &first));
        std::fs::write(&path, renewed).unwrap();
        assert!(tls.reload_if_changed() && !tls.reload_if_changed());
        assert!(!Arc::ptr_eq(tls.config(), &first));
    }
}
