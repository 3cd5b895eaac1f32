//! Whom the command line trusts over https, and what it shows of itself.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};

/// Whom a client trusts over https, and how it shows who it is.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Host")]
pub(super) struct Trust {
    /// Certificates to trust beside the system's, in PEM; of `--tls-self-signed` it is `tls/self-signed.pem` in the state
    /// directory
    #[arg(long, env = "DORMOUSE_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// Talk to whoever answers, whatever certificate it shows: whoever is in between can read and change everything
    #[arg(long, env = "DORMOUSE_INSECURE")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) insecure: bool,
    /// A certificate and its key in one PEM file, for a host with `--admin-client-ca`
    #[arg(long, env = "DORMOUSE_CLIENT_CERT", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_cert: Option<PathBuf>,
}

impl Trust {
    /// A builder of clients that do so.
    pub(super) fn apply(&self, mut builder: reqwest::ClientBuilder) -> anyhow::Result<reqwest::ClientBuilder> {
        // Fails if it was done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(path) = &self.ca {
            let read = fs::read(path).with_context(|| format!("read certificates from {}", path.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&read);
            let certificates = certificates.with_context(|| format!("{} holds no PEM", path.display()))?;
            anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(path) = &self.client_cert {
            let read =
                fs::read(path).with_context(|| format!("read the client's certificate from {}", path.display()))?;
            let identity = reqwest::Identity::from_pem(&read);
            let needs = || format!("{} must hold a certificate and its private key, both in PEM", path.display());
            builder = builder.identity(identity.with_context(needs)?);
        }
        // A host sends nobody elsewhere; whoever does is none.
        Ok(builder.redirect(Policy::none()).tls_danger_accept_invalid_certs(self.insecure))
    }
}
