//! The hosts that `dormouse login` knows: a file that only its owner can read, since keys are in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context as _, anyhow, bail};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::output;
use super::trust::Trust;
use crate::private;

/// The name of the host that commands talk to which name none.
pub(super) const DEFAULT: &str = "default";

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Profile {
    #[serde(skip_serializing_if = "Option::is_none", with = "as_text")]
    pub(super) admin: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none", with = "as_text")]
    pub(super) data: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(flatten)]
    pub(super) trust: Trust,
}

impl Profile {
    /// The same, with what it leaves open from `kept`.
    pub(super) fn over(self, kept: Profile) -> Profile {
        let (own, kept_trust) = (self.trust, kept.trust);
        Profile {
            admin: self.admin.or(kept.admin),
            data: self.data.or(kept.data),
            key: self.key.or(kept.key),
            trust: Trust {
                ca: own.ca.or(kept_trust.ca),
                insecure: own.insecure || kept_trust.insecure,
                client_cert: own.client_cert.or(kept_trust.client_cert),
            },
        }
    }
}

/// All hosts that are known.
#[derive(Debug)]
pub(super) struct Profiles {
    path: PathBuf,
    pub(super) hosts: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Reads them from `dormouse/hosts.toml` in the user's folder for settings. None are known without such a file.
    pub(super) fn read() -> anyhow::Result<Profiles> {
        Profiles::read_from(path())
    }

    fn read_from(path: PathBuf) -> anyhow::Result<Profiles> {
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                String::new()
            }
            read => read.with_context(|| format!("read the known hosts from {}", path.display()))?,
        };
        let hosts = toml::from_str(&text).map_err(|error| {
            // Not the line itself, as the error has it: there may be a key in it.
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
            let remedy = "repair it, or delete it and use `dormouse login` again";
            anyhow!("line {line} of {} cannot be read; {remedy}", path.display())
        })?;
        if private::is_open(&path).unwrap_or(false) {
            output::note(&format!("{0} has keys and others can read it; `chmod 600 {0}` closes it", path.display()));
        }
        Ok(Profiles { path, hosts })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One host.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<Profile> {
        if let Some(profile) = self.hosts.get(name) {
            return Ok(profile.clone());
        }
        let known: Vec<&str> = self.hosts.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "none is known".to_owned() } else { format!("known are {}", known.join(", ")) };
        bail!("there is no host `{name}`: `dormouse login {name} --admin URL` makes it known ({known})")
    }

    /// Writes the file anew, whole or not at all; only its owner can read it.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            // It may be a link to where somebody keeps such files.
            let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            let folder = path.parent().context("it is in no folder")?;
            if !folder.exists() {
                private::folder(folder)?;
            }
            let file = tempfile::NamedTempFile::new_in(folder)?;
            fs::write(file.path(), toml::to_string(&self.hosts)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("write the known hosts to {}", self.path.display()))
    }
}

/// As the XDG Base Directory Specification has it.
fn path() -> PathBuf {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named("XDG_CONFIG_HOME").or_else(|| Some(named("HOME")?.join(".config")));
    folder.unwrap_or_default().join("dormouse/hosts.toml")
}

/// Addresses as people write them.
mod as_text {
    use reqwest::Url;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::super::address::address;

    pub(super) fn serialize<S: Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_ref().map_or("", Url::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
        let text = String::deserialize(deserializer)?;
        address(&text).map(Some).map_err(|error| de::Error::custom(format!("`{text}` is no address: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_kept_where_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/hosts.toml");
        let mut profiles = Profiles::read_from(path.clone()).unwrap();
        assert!(profiles.hosts.is_empty());
        let said = profiles.get("prod").unwrap_err().to_string();
        assert!(said.contains("dormouse login prod") && said.contains("none is known"), "{said}");
        let profile = Profile {
            admin: Some("https://shop.example:8443/".parse().unwrap()),
            key: Some("dmk-1.2".to_owned()),
            trust: Trust { ca: Some("/ca.pem".into()), ..Trust::default() },
            ..Profile::default()
        };
        profiles.hosts.insert("prod".to_owned(), profile.clone());
        profiles.write().unwrap();
        assert!(!private::is_open(&path).unwrap() && !private::is_open(path.parent().unwrap()).unwrap());
        let again = Profiles::read_from(path.clone()).unwrap();
        assert_eq!(again.get("prod").unwrap(), profile);
        assert!(again.get("x").unwrap_err().to_string().contains("known are prod"));
        for wrong in ["prod = 1", "[prod]\nadmin = \"ftp://x\"", "[prod]\nkey = 1"] {
            fs::write(&path, wrong).unwrap();
            let said = format!("{:#}", Profiles::read_from(path.clone()).unwrap_err());
            assert!(said.contains("hosts.toml"), "{said}");
        }
        fs::write(&path, "[prod]\nkey = dmk-1.hush\n").unwrap();
        let said = format!("{:?}", Profiles::read_from(path.clone()).unwrap_err());
        assert!(said.contains("line 2") && !said.contains("hush"), "{said}");
    }

    #[test]
    fn what_a_command_says_wins_over_what_is_kept() {
        let kept = Profile { key: Some("kept".to_owned()), data: "http://d:1".parse().ok(), ..Profile::default() };
        let own = Profile { key: Some("own".to_owned()), ..Profile::default() };
        assert_eq!(own.clone().over(kept.clone()), Profile { data: kept.data.clone(), ..own });
        assert_eq!(Profile::default().over(kept.clone()), kept);
    }
}
