//! The files that sessions made, named by their SHA-256, so that the same bytes are kept once.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::requests::Artifact;

/// The folder of all artifacts.
pub(crate) struct Artifacts {
    folder: PathBuf,
}

/// What is to be kept.
pub(crate) struct NewArtifact<'a> {
    pub(crate) artifact_id: String,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) media_type: &'a str,
    pub(crate) at_ms: u64,
}

impl Artifacts {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Puts bytes on disk. They are there for good when this returns, whether the store hears of them or not.
    pub(crate) async fn keep(&self, new: NewArtifact<'_>, bytes: &[u8]) -> std::io::Result<Artifact> {
        let digest = Sha256::digest(bytes);
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.path(&sha256);
        if !tokio::fs::try_exists(&path).await? {
            self.write(&path, &new.artifact_id, bytes).await?;
        }
        Ok(Artifact {
            artifact_id: new.artifact_id,
            kind: new.kind.to_owned(),
            name: new.name.to_owned(),
            media_type: new.media_type.to_owned(),
            size_bytes: bytes.len() as u64,
            sha256,
            at_ms: new.at_ms,
        })
    }

    /// The bytes of an artifact.
    pub(crate) async fn read(&self, artifact: &Artifact) -> std::io::Result<Bytes> {
        tokio::fs::read(self.path(&artifact.sha256)).await.map(Bytes::from)
    }

    async fn write(&self, path: &Path, unique: &str, bytes: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        tokio::fs::create_dir_all(folder).await?;
        let half = folder.join(format!("{unique}.part"));
        let written = async {
            let mut file = tokio::fs::File::create(&half).await?;
            file.write_all(bytes).await?;
            file.sync_all().await?;
            tokio::fs::rename(&half, path).await?;
            tokio::fs::File::open(folder).await?.sync_all().await
        };
        let outcome = written.await;
        if outcome.is_err() {
            // Most likely the disk is full; what is left of the file only makes that worse.
            tokio::fs::remove_file(&half).await.ok();
        }
        outcome
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256.get(..2).unwrap_or("00")).join(sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str) -> NewArtifact<'_> {
        NewArtifact { artifact_id: id.into(), kind: "file", name: "a.txt", media_type: "text/plain", at_ms: 7 }
    }

    #[tokio::test]
    async fn the_same_bytes_are_kept_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(folder.path().join("artifacts"));
        let one = artifacts.keep(new("a"), b"hello").await.unwrap();
        let two = artifacts.keep(new("b"), b"hello").await.unwrap();
        assert_eq!(one.sha256, two.sha256);
        assert_eq!(one.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(artifacts.read(&one).await.unwrap(), "hello");
    }
}
