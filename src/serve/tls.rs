//! The certificate that a server shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::fs::{self, FsError};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is out of reach.
    #[error("a file of TLS cannot be read")]
    File(#[from] FsError),
    /// There is no certificate in it.
    #[error("`{}` has no certificate in PEM", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no private key in it.
    #[error("`{}` has no private key in PEM", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The two do not go together, or are of an unknown kind.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// Files of a certificate, with those it is signed by, and of its key.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, then those between it and the root.
    pub certificates: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes ready to speak TLS, with HTTP/2 or HTTP/1.1 inside.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let certificates = read_certificates(&files.certificates)?;
    let path = files.key.clone();
    let key = PrivateKeyDer::from_pem_slice(&fs::read(&path)?);
    let key = key.map_err(|_malformed| TlsError::Key { path })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = fs::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Certificate {
            path: path.to_owned(),
        }),
    }
}
