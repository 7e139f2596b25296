//! Keys and passwords: in the configuration, in a file, or given by systemd; read when they are needed, so
//! that a new one is used without a restart, and never printed.

use std::path::{Path, PathBuf};
use std::{env, fmt};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bounded::{self, SETTING_BYTES_MAX};

/// Where a secret is stored.
#[derive(Clone, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "must be a text, or `{ file = \"/path\" }`, or `{ credential = \"name\" }` of systemd"
)]
pub(crate) enum Secret {
    /// Here.
    Text(String),
    /// In a file; a final line end is removed.
    File {
        /// The file's path.
        file: PathBuf,
    },
    /// In a file that systemd put into `$CREDENTIALS_DIRECTORY`.
    Credential {
        /// The name given to `LoadCredential=`.
        credential: String,
    },
}

impl Secret {
    /// The secret now.
    ///
    /// # Errors
    /// It cannot be read, or it is empty.
    pub(crate) fn read(&self) -> Result<String> {
        let secret = match self {
            Self::Text(text) => text.clone(),
            Self::File { file } => read(file)?,
            Self::Credential { credential } => {
                let directory = env::var_os("CREDENTIALS_DIRECTORY").with_context(|| {
                    format!(
                        "the credential `{credential}` is not there: add `LoadCredential={credential}:/path` to \
                         the unit"
                    )
                })?;
                ensure!(
                    !credential.contains('/'),
                    "the credential `{credential}` must be a name, not a path"
                );
                read(&Path::new(&directory).join(credential))?
            }
        };
        ensure!(!secret.is_empty(), "{self:?} is empty");
        Ok(secret)
    }
}

fn read(path: &Path) -> Result<String> {
    let text = bounded::read_text(path, SETTING_BYTES_MAX)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Shows where the secret is stored, never its value.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the secret in the configuration"),
            Self::File { file } => write!(f, "the secret in {}", file.display()),
            Self::Credential { credential } => write!(f, "the credential `{credential}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_are_read_and_never_shown() {
        #[derive(Debug, Deserialize)]
        struct Config {
            key: Secret,
        }
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "hunter2\r\n").unwrap();
        for text in ["key = \"hunter2\"".to_owned(), format!("key = {{ file = {file:?} }}")] {
            let config: Config = toml::from_str(&text).unwrap();
            assert_eq!(config.key.read().unwrap(), "hunter2");
            assert!(!format!("{config:?}").contains("hunter2"));
        }
        fs::write(&file, "\n").unwrap();
        let error = Secret::File { file }.read().unwrap_err().to_string();
        assert!(error.ends_with("key is empty"), "{error}");
        let error = toml::from_str::<Config>("key = { path = \"/x\" }").unwrap_err().to_string();
        assert!(error.contains("must be a text, or `{ file"), "{error}");
    }
}
