//! A real registry, Debian's `docker-registry`, on a port of its own, and what pushes images to it.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hob_sandbox::image::{Digest, ImageReference};
use reqwest::{Method, Url};
use tempfile::TempDir;

/// A registry that is gone when the test is.
pub struct Registry {
    process: Child,
    folder: TempDir,
    address: String,
    credentials: Option<(&'static str, &'static str)>,
}

/// `somebody` and `open sesame`, as `htpasswd -B` writes them.
const PASSWORDS: &str = "somebody:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

impl Registry {
    pub fn open() -> Self {
        Self::start("", None)
    }

    /// One that lets nobody in but `somebody` with the password `open sesame`.
    pub fn closed() -> Self {
        let auth = "auth: {htpasswd: {realm: test, path: FOLDER/passwords}}";
        Self::start(auth, Some(("somebody", "open sesame")))
    }

    fn start(auth: &str, credentials: Option<(&'static str, &'static str)>) -> Self {
        // An error means that another test of this program was first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: FOLDER/data}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n{auth}\n"
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        std::fs::write(folder.path().join("passwords"), PASSWORDS).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs docker-registry, see scripts/setup.sh tests: {error}"));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listening on")).expect("the registry says where it listens");
        let address = line.split("listening on ").nth(1).unwrap().split('"').next().unwrap().to_owned();
        // It would stop at a full pipe. Ends with the process.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, folder, address, credentials }
    }

    pub fn reference(&self, name: &str) -> ImageReference {
        ImageReference::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    /// Where the registry keeps a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest.hex()[..2]).join(digest.hex()).join("data")
    }

    /// Ends it: whoever asks from now on is not answered.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub async fn push_blob(&self, repository: &str, blob: &[u8]) -> Digest {
        let digest = Digest::of(blob);
        let started = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), "", Vec::new()).await;
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let mut url = started.url().join(&location).unwrap();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        self.send(Method::PUT, url.as_str(), "application/octet-stream", blob.to_vec()).await;
        digest
    }

    pub async fn push_manifest(&self, repository: &str, tag: &str, kind: &str, text: &str) -> Digest {
        self.send(Method::PUT, &format!("/v2/{repository}/manifests/{tag}"), kind, text.as_bytes().to_vec()).await;
        Digest::of(text.as_bytes())
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> reqwest::Response {
        let url = Url::parse(&format!("http://{}", self.address)).unwrap().join(path).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.request(method, url).header("content-type", kind).body(body);
        if let Some((name, password)) = self.credentials {
            request = request.basic_auth(name, Some(password));
        }
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}: {}", response.status(), response.text().await.unwrap());
        response
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Where it was stopped already, there is nothing left to kill.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
