//! Secrets of keys, encrypted under a key that lies in a file of its own: whoever steals the database has none of them.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::ids::KeyId;
use crate::private;

const KEY_BYTES: usize = 32;

/// Encrypts and decrypts secrets.
pub(super) struct Vault {
    key: LessSafeKey,
    /// The same, for making others of it.
    derives: hmac::Key,
    path: PathBuf,
}

impl Vault {
    /// Reads the key from its file. The file is made if `may_make`, which must not be where something is encrypted already.
    pub(super) fn open(path: &Path, may_make: bool) -> anyhow::Result<Vault> {
        let read = || -> anyhow::Result<Vault> {
            // What is no file, a pipe for instance, could keep the reader waiting.
            let is_other = fs::metadata(path).is_ok_and(|found| !found.is_file());
            ensure!(!is_other, "it is no regular file");
            let text = match fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => make(path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(anyhow!(
                        "it is not there, and the secrets of the access keys are encrypted under it: restore it, or move \
                         `access.sqlite` away to go on without those keys"
                    ));
                }
                read => read?,
            };
            private::close(path)?;
            let bytes = hex::decode(text.trim()).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let bytes = bytes.with_context(|| format!("it must hold {} hexadecimal digits", 2 * KEY_BYTES))?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| anyhow!("it holds no key"))?;
            let derives = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
            Ok(Vault { key: LessSafeKey::new(key), derives, path: path.to_owned() })
        };
        read().with_context(|| format!("read the key file {}", path.display()))
    }

    /// Encrypts the secret of a key.
    pub(super) fn seal(&self, id: KeyId, secret: &str) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut text = secret.as_bytes().to_vec();
        let of = Aad::from(id.as_u64().to_le_bytes());
        let sealed = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), of, &mut text);
        sealed.map_err(|_| anyhow!("encrypt the secret of {id}"))?;
        Ok([&nonce[..], &text].concat())
    }

    /// A secret that is made of the key for a purpose: always the same one, and it tells nothing of the key or of others.
    pub(super) fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        let tag = hmac::sign(&self.derives, purpose.as_bytes());
        std::array::from_fn(|index| tag.as_ref()[index])
    }

    /// The secret of a key. It fails if it was encrypted under another key file, or for another key.
    pub(super) fn unseal(&self, id: KeyId, sealed: &[u8]) -> anyhow::Result<String> {
        let open = || -> Option<String> {
            let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = text.to_vec();
            let of = Aad::from(id.as_u64().to_le_bytes());
            let secret = self.key.open_in_place(nonce, of, &mut text).ok()?;
            String::from_utf8(secret.to_vec()).ok()
        };
        open().with_context(|| {
            format!(
                "the secret of {id} cannot be decrypted: {} is not the key file that it was encrypted under; restore that one, \
                 or move `access.sqlite` away to go on without its keys",
                self.path.display()
            )
        })
    }
}

/// Random bytes.
pub(super) fn random<const LENGTH: usize>() -> anyhow::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

/// Makes the key's file, whole or not at all, and returns what it holds.
fn make(path: &Path) -> anyhow::Result<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = hex::encode(random::<KEY_BYTES>()?) + "\n";
    // Only its owner can read such a file.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_file_and_for_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let (one, other) = (KeyId::random(), KeyId::random());
        let sealed = Vault::open(&path, true).unwrap().seal(one, "geheim").unwrap();
        let again = Vault::open(&path, false).unwrap();
        assert_eq!(again.unseal(one, &sealed).unwrap(), "geheim");
        assert!(again.unseal(other, &sealed).is_err());
        assert!(again.unseal(one, &sealed[..20]).is_err() && again.unseal(one, &[]).is_err());
        assert!(!sealed.windows(6).any(|bytes| bytes == b"geheim"));
        assert_ne!(again.seal(one, "geheim").unwrap(), sealed);
        let foreign = Vault::open(&folder.path().join("other.key"), true).unwrap();
        let said = foreign.unseal(one, &sealed).unwrap_err().to_string();
        assert!(said.contains("other.key is not the key file"), "{said}");
    }

    #[test]
    fn a_key_file_that_is_missing_or_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let said = |opened: anyhow::Result<Vault>| format!("{:#}", opened.err().unwrap());
        assert!(said(Vault::open(&path, false)).contains("restore it"));
        for wrong in [&b"abc"[..], b"", &[0xff; 64]] {
            fs::write(&path, wrong).unwrap();
            assert!(said(Vault::open(&path, true)).contains("64 hexadecimal digits"));
        }
        assert!(said(Vault::open(folder.path(), true)).contains("no regular file"));
        fs::remove_file(&path).unwrap();
        Vault::open(&path, true).unwrap();
        assert!(!private::is_open(&path).unwrap());
    }
}
