//! Who may talk to the server: one owner for now, known by a bearer token or by the cookie of a sign-in.
//!
//! | secret | purpose | where it lies | lives |
//! |---|---|---|---|
//! | owner's token | the command line and scripts | `DATA_DIR/token`, readable by the server's user alone | until the file is removed |
//! | login token | one sign-in of a browser | printed at start, nowhere else | once, until the server ends |
//! | login cookie | a browser | the browser; its hash in `DATA_DIR/logins` | 30 days |
//!
//! The server keeps hashes and compares them in constant time. What a browser may send from where is in [`origin`].

mod guard;
pub mod origin;
mod secret;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

pub use guard::{Signed, require_owner, require_safe_origin};
use secret::{Hash, hash};
pub use secret::{Secret, write_private};

/// The cookie of a sign-in.
pub const COOKIE: &str = "hob_login";

const COOKIE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Sign-ins that are kept; the oldest goes first.
const LOGINS_MAX: usize = 64;

/// Why the secrets could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file of secrets cannot be read or written.
    #[error("keep the secrets in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The secrets that the server knows, as hashes.
#[derive(Debug)]
pub struct Auth {
    token: Hash,
    login: Mutex<Option<Hash>>,
    logins: Mutex<Vec<Login>>,
    logins_file: PathBuf,
}

/// A browser that signed in.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Login {
    hash: Hash,
    until_ms: u64,
}

impl Auth {
    /// Reads the owner's token from the data folder, or makes one. Gives the login token to print as well.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(data_dir: &Path) -> Result<(Self, Secret), AuthError> {
        let token = token_of(data_dir, secret::Missing::Make)?;
        let logins_file = data_dir.join("logins");
        let logins = match fs::read(&logins_file) {
            // A file that cannot be understood only means that browsers sign in again.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(AuthError::File { path: logins_file, source }),
        };
        let login = Secret::random();
        let auth = Self {
            token: hash(token.as_str()),
            login: Mutex::new(Some(hash(login.as_str()))),
            logins: Mutex::new(logins),
            logins_file,
        };
        Ok((auth, login))
    }

    /// Whether a request carries the owner's token or a valid cookie.
    pub fn knows(&self, headers: &HeaderMap, now_ms: u64) -> bool {
        if let Some(token) = bearer(headers) {
            return secret::same(&hash(token), &self.token);
        }
        let Some(cookie) = cookie(headers) else { return false };
        let shown = hash(cookie);
        // Every entry is compared, so that the time tells nothing about which one fits.
        lock(&self.logins)
            .iter()
            .fold(false, |known, login| known | (secret::same(&shown, &login.hash) & (login.until_ms > now_ms)))
    }

    /// Takes a login token, once, for the value of a `Set-Cookie` header.
    ///
    /// # Errors
    /// The sign-in cannot be written down.
    pub fn sign_in(&self, login_token: &str, now_ms: u64) -> Result<Option<String>, AuthError> {
        {
            let mut expected = lock(&self.login);
            if !expected.as_ref().is_some_and(|login| secret::same(&hash(login_token), login)) {
                return Ok(None);
            }
            *expected = None;
        }
        let cookie = Secret::random();
        let until_ms = now_ms.saturating_add(u64::try_from(COOKIE_LIFE.as_millis()).unwrap_or(u64::MAX));
        let mut logins = lock(&self.logins);
        logins.retain(|login| login.until_ms > now_ms);
        let too_many = (logins.len() + 1).saturating_sub(LOGINS_MAX);
        logins.drain(..too_many);
        logins.push(Login { hash: hash(cookie.as_str()), until_ms });
        let bytes = serde_json::to_vec(&*logins).unwrap_or_default();
        write_private(&self.logins_file, &bytes)
            .map_err(|source| AuthError::File { path: self.logins_file.clone(), source })?;
        let seconds = COOKIE_LIFE.as_secs();
        Ok(Some(format!("{COOKIE}={}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}", cookie.as_str())))
    }
}

/// The owner's token, for a client that runs as the server's user on the same machine.
///
/// # Errors
/// There is none, or this user may not read it.
pub fn read_token(data_dir: &Path) -> Result<Secret, AuthError> {
    token_of(data_dir, secret::Missing::Fail)
}

fn token_of(data_dir: &Path, missing: secret::Missing) -> Result<Secret, AuthError> {
    let path = data_dir.join("token");
    secret::read(&path, missing).map_err(|source| AuthError::File { path, source })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// A panic while the lock was held leaves nothing half-written behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_token_is_for_its_owner_alone_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, _) = Auth::open(dir.path()).unwrap();
        let token = read_token(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join("token")).unwrap().permissions().mode() & 0o777, 0o600);
        let headers = with(header::AUTHORIZATION, &format!("Bearer {}", token.as_str()));
        assert!(auth.knows(&headers, 0));
        assert!(Auth::open(dir.path()).unwrap().0.knows(&headers, 0));
        assert!(!auth.knows(&with(header::AUTHORIZATION, "Bearer x"), 0));
        assert!(!auth.knows(&HeaderMap::new(), 0));
    }

    #[test]
    fn a_login_url_works_once() {
        let dir = tempfile::tempdir().unwrap();
        let (auth, login) = Auth::open(dir.path()).unwrap();
        assert_eq!(auth.sign_in("guess", 0).unwrap(), None);
        let cookie = auth.sign_in(login.as_str(), 0).unwrap().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Lax;"), "{cookie}");
        assert_eq!(auth.sign_in(login.as_str(), 0).unwrap(), None);

        let headers = with(header::COOKIE, &format!("other=1; {}", cookie.split(';').next().unwrap()));
        assert!(auth.knows(&headers, 0));
        let month_ms = 31 * 24 * 3_600_000;
        assert!(!auth.knows(&headers, month_ms), "a sign-in ends after 30 days");
        assert!(Auth::open(dir.path()).unwrap().0.knows(&headers, 0), "it survives a restart");
    }

    #[test]
    fn no_secret_is_printed_by_mistake() {
        let secret = Secret::random();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
