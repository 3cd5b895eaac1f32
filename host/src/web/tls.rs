//! TLS of a plane: certificates from files, read again when they change.
//!
//! Who began with a certificate goes on with it; a new one is for new connections.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// What a client that knows both versions of HTTP speaks.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chains, each with its key, in PEM. A client gets the first that has the name it asked for, or the first of all.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Who signs the certificates of clients, in PEM; none: clients show none.
    pub client_authorities: Option<PathBuf>,
}

/// The TLS of a plane; cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    server: ArcSwap<Loaded>,
}

struct Loaded {
    server: Arc<ServerConfig>,
    /// What the files were like when they were read.
    stamps: Vec<Stamp>,
}

type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> anyhow::Result<Tls> {
        let server = ArcSwap::from_pointee(files.load()?);
        Ok(Tls(Arc::new(Inner { files, server })))
    }

    /// Reads the files again. If they are wrong, all stays as it is.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.0.server.store(Arc::new(self.0.files.load()?));
        Ok(())
    }

    /// The same if they have changed; says whether they had.
    pub fn reload_if_changed(&self) -> anyhow::Result<bool> {
        if self.0.files.stamps() == self.0.server.load().stamps {
            return Ok(false);
        }
        self.reload()?;
        Ok(true)
    }

    /// What shakes hands with the next client.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.server.load().server.clone().into()
    }
}

impl TlsFiles {
    fn load(&self) -> anyhow::Result<Loaded> {
        // Before the files are read: what changes meanwhile is seen as a change.
        let stamps = self.stamps();
        let pairs = self.pairs.iter().map(|(chain, key)| read_pair(chain, key));
        let certificates = Certificates(pairs.collect::<anyhow::Result<_>>()?);
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().context("choose versions of TLS")?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Arc::new(read_authorities(path)?);
                let provider = Arc::new(ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Loaded { server: Arc::new(server), stamps })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let pairs = self.pairs.iter().flat_map(|(chain, key)| [chain, key]);
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        pairs.chain(&self.client_authorities).map(stamp).collect()
    }
}

/// Certificates with their keys; never empty.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked_for = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |pair: &&Arc<CertifiedKey>| asked_for.as_ref().is_some_and(|name| is_for(pair, name));
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = pair.cert.first().and_then(|certificate| ParsedCertificate::try_from(certificate).ok());
    parsed.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

fn read_pair(chain_path: &Path, key_path: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = read_certificates(chain_path)?;
    check_kind(key_path)?;
    let key = PrivateKeyDer::from_pem_file(key_path)
        .with_context(|| format!("{} holds no private key in PEM", key_path.display()))?;
    let key = ring::sign::any_supported_type(&key)
        .with_context(|| format!("the key in {} is of no kind that TLS uses", key_path.display()))?;
    let pair = CertifiedKey::new(chain, key);
    let (chain_path, key_path) = (chain_path.display(), key_path.display());
    pair.keys_match()
        .with_context(|| format!("the key in {key_path} is not that of the certificate in {chain_path}"))?;
    Ok(Arc::new(pair))
}

fn read_authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = authorities.add(certificate);
        added.with_context(|| format!("{} holds a certificate that cannot sign others", path.display()))?;
    }
    Ok(authorities)
}

/// Reading anything but a file may never end.
fn check_kind(path: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no file", path.display());
    Ok(())
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    check_kind(path)?;
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("cannot read certificates in PEM from {}", path.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(certificates)
}
