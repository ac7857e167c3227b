//! The system under a container, as an image of the daemon.
//!
//! What is unpacked on this machine is imported once, under a name that says what it was made of, and shared by all data
//! folders that use the daemon.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Inner;
use super::api::{Image, ImageSummary};
use super::archive::{self, Owners};
use super::engine::{Archive, quoted};
use crate::hex::hex;
use crate::layer::merge;
use crate::provider::SandboxError;
use crate::spec::Base;

/// The repository of imported bases.
const REPOSITORY: &str = "hob-base";

/// The label with the folders that a base was imported from.
const SOURCES: &str = "hob.sources";

/// What to do where a sandbox is to stand on this machine's own system.
const NO_HOST: &str = "a container cannot stand on this machine's own system: name an image that the daemon has as \
                       sandbox.docker.image in hob.toml, or a base in the repository's .hob/environment.toml";

impl Inner {
    /// The image of a base; imported where it is not there yet.
    pub(super) async fn image_of(&self, base: &Base) -> Result<String, SandboxError> {
        let machine = |reason: String| SandboxError::Machine { reason };
        let (folders, name) = match base {
            Base::Host => return self.image.clone().ok_or_else(|| machine(NO_HOST.to_owned())),
            Base::Directory(root) => (std::slice::from_ref(root), name(std::slice::from_ref(root))?),
            Base::Layers(layers) => (layers.as_slice(), name(layers)?),
        };
        // Two sandboxes that want the same base at once import it once.
        let _turn = self.importing.lock().await;
        if self.image(&name).await?.is_none() {
            self.import(folders, &name).await?;
        }
        Ok(name)
    }

    /// What the daemon knows of an image; `None` where it has none of that name.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Image>, SandboxError> {
        self.engine.find(&format!("/images/{name}/json")).await.map_err(SandboxError::from)
    }

    async fn import(&self, folders: &[PathBuf], name: &str) -> Result<(), SandboxError> {
        tracing::info!(
            "importing {} as the image {name}",
            folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
        );
        let merged = match folders {
            [_] => None,
            layers => Some(self.merge(layers).await?),
        };
        let root = merged.as_deref().or(folders.first().map(PathBuf::as_path)).unwrap_or(Path::new("/"));
        let archive = archive::folder(root.to_owned(), "", Owners::AsHere, &self.tasks);
        let imported = self.take_image(archive, name, folders).await;
        if let Some(merged) = merged {
            super::record::remove(&merged)?;
        }
        imported
    }

    /// Hands an archive of a whole root to the daemon.
    async fn take_image(&self, archive: Archive, name: &str, folders: &[PathBuf]) -> Result<(), SandboxError> {
        let change = label(SOURCES, &json!(folders).to_string());
        let said = self.engine.load(Method::POST, &import_path(&[change]), archive).await?;
        self.name_imported(name, &said).await
    }

    /// Names the image that an archive has become.
    pub(super) async fn name_imported(&self, name: &str, said: &[u8]) -> Result<(), SandboxError> {
        let image =
            imported(said).map_err(|reason| SandboxError::Machine { reason: format!("import {name}: {reason}") })?;
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let path = format!("/images/{image}/tag?repo={}&tag={}", quoted(repository), quoted(tag));
        Ok(self.engine.act(Method::POST, &path).await?)
    }

    /// Removes the imported bases whose folders are gone. One that a container still stands on stays.
    pub(super) async fn remove_old_bases(&self) -> Result<(), SandboxError> {
        let images: Vec<ImageSummary> = self.engine.get("/images/json").await?;
        for image in images {
            let sources = image.labels.iter().flatten().find(|(name, _)| *name == SOURCES);
            let sources: Vec<PathBuf> =
                sources.and_then(|(_, sources)| serde_json::from_str(sources).ok()).unwrap_or_default();
            if sources.iter().any(|source| !source.exists()) {
                for tag in image.repo_tags.iter().flatten() {
                    self.engine.settle(Method::DELETE, &format!("/images/{tag}")).await?;
                }
            }
        }
        Ok(())
    }

    /// Lays the layers of an image over each other, without copying what files hold.
    async fn merge(&self, layers: &[PathBuf]) -> Result<PathBuf, SandboxError> {
        let target = self.folder.join("merging").join(format!("{}", std::process::id()));
        let (layers, merged) = (layers.to_vec(), target.clone());
        let merging = tokio::task::spawn_blocking(move || {
            super::record::remove(&merged)?;
            fs::create_dir_all(&merged).map_err(SandboxError::io("create", &merged))?;
            let lowest_first: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
            merge(&lowest_first, &merged).map_err(SandboxError::io("merge layers into", &merged))
        });
        merging.await.map_err(|error| SandboxError::Machine { reason: error.to_string() })??;
        Ok(target)
    }
}

/// Where an archive of a root becomes an image, with changes to what the image says of its containers. It gets its name
/// later: Podman's old releases do not heed the one of an import.
pub(super) fn import_path(changes: &[String]) -> String {
    let changes: String = changes.iter().map(|change| format!("&changes={}", quoted(change))).collect();
    format!("/images/create?fromSrc=-{changes}")
}

/// A change to what an image says of its containers: a label with any text as its value.
pub(super) fn label(name: &str, value: &str) -> String {
    // A Dockerfile's instruction: in quotes, where a dollar begins a variable.
    format!("LABEL {name}={}", json!(value).to_string().replace('$', "\\$"))
}

/// The image that an import has made. The daemon answers with lines of progress; the last tells its ID, and what went wrong
/// is a line of its own.
fn imported(said: &[u8]) -> Result<String, String> {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Line {
        status: String,
        error: Option<String>,
    }
    let text = String::from_utf8_lossy(said);
    let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if let Some(error) = lines.iter().find_map(|line| line.error.as_ref()) {
        return Err(error.clone());
    }
    let id = lines.into_iter().map(|line| line.status).rfind(|status| status.starts_with("sha256:"));
    id.ok_or_else(|| "the container daemon names no image".to_owned())
}

/// What the image of these folders is called: a base's folders never change while it is in use, so each is known by its
/// path and its identity on disk.
fn name(folders: &[PathBuf]) -> Result<String, SandboxError> {
    let mut hash = Sha256::new();
    for folder in folders {
        let metadata = fs::metadata(folder).map_err(SandboxError::io("use", folder))?;
        if !metadata.is_dir() {
            return Err(SandboxError::io("use", folder)(std::io::ErrorKind::NotADirectory.into()));
        }
        hash.update(format!(
            "{}\0{} {} {}.{}\0",
            folder.display(),
            metadata.dev(),
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec()
        ));
    }
    Ok(format!("{REPOSITORY}:{}", hex(&hash.finalize()[..16])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_folder_is_another_image_and_a_failed_import_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let of =
            |folders: &[&PathBuf]| name(&folders.iter().map(|folder| (*folder).clone()).collect::<Vec<_>>()).unwrap();
        assert_eq!(of(&[&one]), of(&[&one]));
        assert!(of(&[&one]) != of(&[&two]) && of(&[&one, &two]) != of(&[&two, &one]));
        assert!(name(&[folder.path().join("none")]).is_err());
        assert_eq!(import_path(&["ENV A=b".to_owned()]), "/images/create?fromSrc=-&changes=ENV%20A%3Db");
        assert_eq!(imported(b"{\"status\":\"Importing\"}\r\n{\"status\":\"sha256:1\"}\r\n").unwrap(), "sha256:1");
        let told = imported(b"{\"errorDetail\":{},\"error\":\"no space left\"}").unwrap_err();
        assert_eq!(told, "no space left");
        assert!(imported(b"").is_err());
    }
}
