//! A registry and a store, and what the tests of images ask of them.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::fs;
use std::path::{Path, PathBuf};

use hob_sandbox::image::{ImageError, ImageLimits, ImageReference, ImageStore, Rootfs};
use hob_sandbox::{Base, Spec};
use tempfile::TempDir;

use super::common::spec;
use super::made::{Image, Layer};
use super::registry::Registry;

/// A registry, and a store beside it.
pub struct House {
    pub registry: Registry,
    pub store: ImageStore,
    pub folder: TempDir,
}

impl House {
    pub fn new() -> Self {
        Self::with_limits(ImageLimits::default())
    }

    pub fn with_limits(limits: ImageLimits) -> Self {
        let folder = tempfile::Builder::new().prefix("hob-test-").tempdir().unwrap();
        let store = ImageStore::with_limits(&folder.path().join("images"), limits).unwrap();
        Self { registry: Registry::open(), store, folder }
    }

    pub async fn pull(&self, reference: &ImageReference) -> Result<Rootfs, ImageError> {
        self.store.pull(reference, None, &|_| {}).await
    }

    /// The image of these layers, bottom first.
    pub async fn image(&self, layers: impl IntoIterator<Item = Layer>) -> Rootfs {
        let reference = Image::of(layers).push(&self.registry, "image").await;
        self.pull(&reference).await.unwrap_or_else(|error| panic!("failed to {error}"))
    }

    /// Why an image with this layer on top of an honest one is not pulled. Nothing of the layer is left.
    pub async fn refusal(&self, layer: Layer) -> String {
        let honest = Layer::new().file("etc/honest", 0o644, "yes");
        let reference = Image::of([honest, layer]).push(&self.registry, "hostile").await;
        let error = self.pull(&reference).await.expect_err("it is refused").to_string();
        assert!(entries(&self.images().join("new")).is_empty(), "nothing half is kept");
        assert!(entries(&self.images().join("layers")).len() <= 1, "nothing but the honest layer is kept");
        error
    }

    pub fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }
}

pub fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn on(rootfs: &Rootfs) -> Spec {
    Spec { base: Base::Layers(rootfs.layers.clone()), ..spec("image") }
}
