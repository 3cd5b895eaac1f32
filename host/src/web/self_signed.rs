//! A certificate that the host signs itself, for trying: kept in the state directory, so that a client may trust it for longer
//! than one run.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::private;

/// The certificate and its key. Made unless they are there: for `localhost`, this machine's name, and `addresses`.
pub fn certificate(state_dir: &Path, addresses: &[IpAddr]) -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = state_dir.join("tls");
    let (chain, key) = (folder.join("self-signed.pem"), folder.join("self-signed.key"));
    if !chain.exists() || !key.exists() {
        private::folder(&folder)?;
        make(&chain, &key, addresses).with_context(|| format!("make a certificate in {}", folder.display()))?;
    }
    tracing::info!(certificate = %chain.display(), "this host signs its certificate itself; clients trust it with `--ca`");
    Ok((chain, key))
}

fn make(chain: &Path, key: &Path, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let bound = addresses.iter().filter(|address| !address.is_unspecified() && !address.is_loopback());
    let texts = loopback.iter().chain(bound).map(IpAddr::to_string);
    let mut names: Vec<String> = ["localhost".to_owned(), machine].into_iter().chain(texts).collect();
    names.retain(|name| !name.is_empty());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Dormouse, signed by itself");
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    // The key first, and closed before it is written: a certificate alone is made again.
    drop(private::file(key)?);
    fs::write(key, pair.serialize_pem())?;
    fs::write(chain, certificate.pem())?;
    Ok(())
}
