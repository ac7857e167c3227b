//! Asks a registry for manifests and blobs (OCI distribution specification, “Pull”).
//!
//! Whatever a registry answers is bounded and, where its digest is known, compared. Credentials are sent to the registry
//! that they are for, and to the address that it names for its tokens: never without TLS, but on this machine.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::challenge::Challenge;
use super::client::{chain, client, may_ask};
use super::digest::Digest;
use super::error::ImageError;
use super::manifest::{ACCEPTED, DOCUMENT_MAX, Part};
use super::reference::ImageReference;

/// How often something is asked for before the registry is given up, and the first pause between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// A name and a password for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, or a token in its place.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// What is shown to the registry.
#[derive(Clone)]
enum Access {
    Nothing,
    Basic,
    Token(String),
}

/// A question to the registry.
struct Ask<'a> {
    url: Url,
    accept: Option<&'static str>,
    /// Where the answer goes; into memory without.
    file: Option<&'a Path>,
    bytes_max: u64,
    /// Hears of the bytes that came.
    heard: &'a (dyn Fn(u64) + Send + Sync),
}

/// Why there is no answer.
enum Trouble {
    /// It may be better the next time.
    Passing(String),
    Lasting(ImageError),
}

/// A registry, asked for one image.
pub(super) struct Registry<'a> {
    http: reqwest::Client,
    reference: &'a ImageReference,
    credentials: Option<&'a Credentials>,
    access: Mutex<Access>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(reference: &'a ImageReference, credentials: Option<&'a Credentials>) -> Result<Self, ImageError> {
        let http = client(reference.is_local())
            .map_err(|error| ImageError::Registry { reference: reference.to_string(), reason: chain(&error) })?;
        Ok(Self { http, reference, credentials, access: Mutex::new(Access::Nothing) })
    }

    /// A manifest or an index by tag or digest.
    pub(super) async fn manifest(&self, wanted: &str) -> Result<(Vec<u8>, Digest), ImageError> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        self.ask(&Ask { url, accept: Some(ACCEPTED), file: None, bytes_max: DOCUMENT_MAX, heard: &|_| {} }).await
    }

    /// A small blob, such as a configuration.
    pub(super) async fn document(&self, part: &Part) -> Result<Vec<u8>, ImageError> {
        let url = self.url(&format!("blobs/{}", part.digest))?;
        let bytes_max = part.size.min(DOCUMENT_MAX);
        let (bytes, found) = self.ask(&Ask { url, accept: None, file: None, bytes_max, heard: &|_| {} }).await?;
        self.verify("the configuration", &part.digest, found)?;
        Ok(bytes)
    }

    /// A blob into a file. It is not longer than its manifest says.
    pub(super) async fn blob(
        &self,
        part: &Part,
        file: &Path,
        heard: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ImageError> {
        let url = self.url(&format!("blobs/{}", part.digest))?;
        let (_, found) = self.ask(&Ask { url, accept: None, file: Some(file), bytes_max: part.size, heard }).await?;
        self.verify("a layer", &part.digest, found)
    }

    /// Compares digests.
    pub(super) fn verify(&self, what: &'static str, expected: &Digest, found: Digest) -> Result<(), ImageError> {
        if *expected == found {
            return Ok(());
        }
        Err(ImageError::Altered { reference: self.reference.to_string(), what, expected: expected.clone(), found })
    }

    fn url(&self, path: &str) -> Result<Url, ImageError> {
        let scheme = if self.reference.is_local() { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{path}", self.reference.host(), self.reference.repository());
        Url::parse(&text).map_err(|error| self.failed(format!("reach {text}: {error}")))
    }

    fn failed(&self, reason: String) -> ImageError {
        ImageError::Registry { reference: self.reference.to_string(), reason }
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<(Vec<u8>, Digest), ImageError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.attempt(ask).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(reason)) if attempt == ATTEMPTS => return Err(self.failed(reason)),
                Err(Trouble::Passing(reason)) => {
                    tracing::debug!("failed to ask {} for {}, trying again: {reason}", ask.url, self.reference);
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
            }
        }
        Err(self.failed("it was not asked".to_owned()))
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Result<(Vec<u8>, Digest), Trouble> {
        let mut response = self.send(ask).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            let challenge = Challenge::read(&headers.collect::<Vec<_>>().join(", "));
            self.authorise(challenge).await?;
            response = self.send(ask).await?;
        }
        self.judge(response.status(), ask)?;
        self.receive(response, ask).await
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<reqwest::Response, Trouble> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = self.http.get(ask.url.clone());
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        request = match (access, self.credentials) {
            (Access::Token(token), _) => request.bearer_auth(token),
            (Access::Basic, Some(known)) => request.basic_auth(&known.username, Some(&known.password)),
            (Access::Basic | Access::Nothing, _) => request,
        };
        request.send().await.map_err(|error| self.unreached(&error))
    }

    fn unreached(&self, error: &reqwest::Error) -> Trouble {
        let reason = format!("reach {}: {}", self.reference.registry(), chain(error));
        if error.is_redirect() { Trouble::Lasting(self.failed(reason)) } else { Trouble::Passing(reason) }
    }

    fn judge(&self, status: StatusCode, ask: &Ask<'_>) -> Result<(), Trouble> {
        let (reference, registry) = (self.reference.to_string(), self.reference.registry().to_owned());
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => Err(Trouble::Lasting(ImageError::Missing { reference, registry })),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::Lasting(self.denied())),
            StatusCode::TOO_MANY_REQUESTS => Err(Trouble::Lasting(
                self.failed(format!("{registry} says that it was asked too often; wait, or give credentials")),
            )),
            status if status.is_server_error() => Err(Trouble::Passing(format!("{registry} answers {status}"))),
            status => Err(Trouble::Lasting(self.failed(format!("{registry} answers {status} for {}", ask.url.path())))),
        }
    }

    fn denied(&self) -> ImageError {
        ImageError::Denied {
            reference: self.reference.to_string(),
            registry: self.reference.registry().to_owned(),
            who: self
                .credentials
                .map_or("whoever has no credentials".to_owned(), |known| format!("{:?}", known.username)),
        }
    }

    async fn receive(&self, mut response: reqwest::Response, ask: &Ask<'_>) -> Result<(Vec<u8>, Digest), Trouble> {
        let (mut hash, mut taken, mut bytes) = (Sha256::new(), 0_u64, Vec::new());
        let written = |source| match ask.file {
            Some(path) => Trouble::Lasting(ImageError::Io { action: "write", path: path.to_owned(), source }),
            None => Trouble::Passing(source.to_string()),
        };
        // Not made in the background: this future may be dropped at any time, and with it the folder.
        let created = ask.file.map(std::fs::File::create).transpose().map_err(written)?;
        let mut file = created.map(tokio::fs::File::from_std);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreached(&error))? {
            taken += chunk.len() as u64;
            if taken > ask.bytes_max {
                let (reference, limit) = (self.reference.to_string(), ask.bytes_max);
                return Err(Trouble::Lasting(ImageError::TooMuch { reference, what: "bytes in a part", limit }));
            }
            hash.update(&chunk);
            match &mut file {
                Some(file) => file.write_all(&chunk).await.map_err(written)?,
                None => bytes.extend_from_slice(&chunk),
            }
            (ask.heard)(chunk.len() as u64);
        }
        if let Some(file) = &mut file {
            file.flush().await.map_err(written)?;
        }
        Ok((bytes, Digest::finished(hash)))
    }

    async fn authorise(&self, challenge: Option<Challenge>) -> Result<(), Trouble> {
        let access = match challenge {
            Some(Challenge::Basic) if self.credentials.is_some() => Access::Basic,
            Some(Challenge::Bearer { realm, service, scope }) => {
                Access::Token(self.token(&realm, service, scope).await?)
            }
            Some(Challenge::Basic) | None => return Err(Trouble::Lasting(self.denied())),
        };
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
        Ok(())
    }

    async fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> Result<String, Trouble> {
        let unfit = || {
            Trouble::Lasting(self.failed(format!("{} names an unfit address for tokens", self.reference.registry())))
        };
        let mut url = Url::parse(realm).map_err(|_| unfit())?;
        if !may_ask(&url, self.reference.is_local()) {
            return Err(unfit());
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository()));
        url.query_pairs_mut().extend_pairs(service.map(|service| ("service", service))).append_pair("scope", &scope);
        let mut request = self.http.get(url.clone());
        if let Some(known) = self.credentials {
            request = request.basic_auth(&known.username, Some(&known.password));
        }
        let response = request.send().await.map_err(|error| self.unreached(&error))?;
        let ask = Ask { url, accept: None, file: None, bytes_max: 1 << 20, heard: &|_| {} };
        self.judge(response.status(), &ask)?;
        let (bytes, _) = self.receive(response, &ask).await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::Lasting(self.failed(format!("understand the token of {realm}: {error}"))))?;
        let token = answer.token.or(answer.access_token);
        token.ok_or_else(|| Trouble::Lasting(self.failed(format!("{realm} hands out no token"))))
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_printed() {
        let known = Credentials { username: "somebody".to_owned(), password: "secret".to_owned() };
        assert_eq!(format!("{known:?}"), "Credentials(…)");
    }
}
