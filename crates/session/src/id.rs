//! The name of a session.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a session: 1 to 32 characters of `a-z` and `0-9`, so that it fits a branch, a folder and a sandbox alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// Takes a name, or says what is wrong with it.
    ///
    /// # Errors
    /// The name is empty, longer than 32 characters, or holds anything but `a-z` and `0-9`.
    pub fn new(name: impl Into<String>) -> Result<Self, String> {
        let name = name.into();
        let fits = (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits { Ok(Self(name)) } else { Err(format!("a session cannot be named {name:?}")) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first eight characters, as branches show it.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SessionId {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(name)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, fits: bool) {
        assert_eq!(SessionId::new(name).is_ok(), fits, "{name:?}");
    }

    #[test]
    fn names_that_fit_and_names_that_do_not() {
        check("k3v9", true);
        check("", false);
        check("../etc", false);
        check("Upper", false);
        check(&"a".repeat(33), false);
    }

    #[test]
    fn a_short_name_is_its_own_short_form() {
        assert_eq!(SessionId::new("k3v9").unwrap().short(), "k3v9");
        assert_eq!(SessionId::new("0123456789abcdef").unwrap().short(), "01234567");
    }
}
