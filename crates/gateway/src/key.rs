//! Keys by reference: where a credential is kept, and the credential itself for as long as one call needs it.
//!
//! A key's text is never part of a configuration, a log line or an error.

use std::fmt;
use std::path::PathBuf;

use http::HeaderValue;
use serde::Deserialize;
use thiserror::Error;

/// The largest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a key is kept: `env:NAME`, `file:PATH`, or `none` for a server that asks for no key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum KeyRef {
    /// No key is sent.
    #[default]
    None,
    /// The value of an environment variable of the server.
    Env(String),
    /// The content of a file, without the white space around it.
    File(PathBuf),
}

/// Why a key could not be read, or a reference not be understood. The key's text is in none of them.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is no reference. It is not repeated here: it may be a key that was pasted by mistake.
    #[error("a key is given by reference, as `env:NAME`, `file:PATH` or `none`, never as its text")]
    NotAReference,
    /// The environment variable is not set, or is empty.
    #[error("the environment variable {0} is not set; set it for the server, or name another in `key`")]
    NoVariable(String),
    /// The file could not be read.
    #[error("read the key file {path}: {source}")]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is empty, or far too long to hold a key.
    #[error("the key file {0} holds no key of a plausible length")]
    Implausible(PathBuf),
    /// The key holds a line break or another character that no HTTP header may carry.
    #[error("the key of {0} holds characters that an HTTP header cannot carry")]
    NotAHeader(String),
}

/// A credential in memory.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl KeyRef {
    /// Reads what is referred to, for use outside the gateway, such as a registry's password.
    ///
    /// # Errors
    /// It is not there, or no key.
    pub async fn plain(&self) -> Result<Option<String>, KeyError> {
        Ok(self.read().await?.map(|secret| secret.expose().to_owned()))
    }

    /// Reads the key now. `Ok(None)` where the reference says that there is none.
    pub(crate) async fn read(&self) -> Result<Option<Secret>, KeyError> {
        match self {
            Self::None => Ok(None),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Secret::new(&value, || format!("env:{name}")).map(Some),
                _ => Err(KeyError::NoVariable(name.clone())),
            },
            Self::File(path) => {
                let failed = |source| KeyError::NoFile { path: path.clone(), source };
                let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
                if size > KEY_FILE_BYTES_MAX {
                    return Err(KeyError::Implausible(path.clone()));
                }
                let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
                if text.trim().is_empty() {
                    return Err(KeyError::Implausible(path.clone()));
                }
                Secret::new(&text, || format!("file:{}", path.display())).map(Some)
            }
        }
    }
}

impl TryFrom<String> for KeyRef {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        match text.split_once(':') {
            _ if text == "none" => Ok(Self::None),
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(KeyError::NotAReference),
        }
    }
}

impl Secret {
    fn new(text: &str, origin: impl Fn() -> String) -> Result<Self, KeyError> {
        let text = text.trim();
        HeaderValue::from_str(text).map_err(|_| KeyError::NotAHeader(origin()))?;
        Ok(Self(text.to_owned()))
    }

    /// The text, for the request that leaves and for the scrubber that looks for it in the answer.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_understood_and_pasted_keys_are_not_repeated() {
        assert_eq!(KeyRef::try_from("env:MODEL_KEY".to_owned()).unwrap(), KeyRef::Env("MODEL_KEY".into()));
        assert_eq!(KeyRef::try_from("file:/run/key".to_owned()).unwrap(), KeyRef::File("/run/key".into()));
        assert_eq!(KeyRef::try_from("none".to_owned()).unwrap(), KeyRef::None);
        let error = KeyRef::try_from("sk-pasted-by-mistake".to_owned()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pasted"));
    }

    #[tokio::test]
    async fn a_key_file_is_read_without_its_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sk-from-a-file\n").unwrap();
        let secret = KeyRef::File(path).read().await.unwrap().unwrap();
        assert_eq!(secret.expose(), "sk-from-a-file");
        assert!(!format!("{secret:?}").contains("from-a-file"));
    }

    #[tokio::test]
    async fn a_reference_that_does_not_resolve_says_which() {
        let error = KeyRef::Env("HOB_TEST_NO_SUCH_VARIABLE".into()).read().await.unwrap_err();
        assert!(error.to_string().contains("HOB_TEST_NO_SUCH_VARIABLE"), "{error}");
        let error = KeyRef::File("/nonexistent/key".into()).read().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/key"), "{error}");
    }
}
