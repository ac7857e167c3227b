//! Removes images that nobody needs, and the layers that then belong to none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::digest::Digest;
use super::error::ImageError;
use super::store::{ImageStore, Pulled};

impl ImageStore {
    /// Removes every image but those in `used`, by their [`Rootfs::digest`](super::Rootfs::digest), and every layer that
    /// none of these has. Returns how many layers went.
    ///
    /// Does nothing while something is pulled, whose layers belong to no image yet: the next time will do. A layer that
    /// a sandbox is mounted of must belong to an image in `used`, also while the sandbox is suspended.
    ///
    /// # Errors
    /// The store cannot be read, or something of it not removed.
    pub async fn remove_unused(&self, used: &BTreeSet<Digest>) -> Result<usize, ImageError> {
        let Ok(alone) = Arc::clone(self.inner().pulls()).try_write_owned() else { return Ok(0) };
        let (layers, used) = (Arc::clone(self.inner().layers()), used.clone());
        let removed = tokio::task::spawn_blocking(move || {
            // Held until all is done, also where nobody waits for it any more.
            let _alone = alone;
            let mut needed = BTreeSet::new();
            for name in layers.remembered()? {
                match layers.recall::<Pulled>(&name)? {
                    Some(image) if used.contains(&image.digest) => needed.extend(image.layers),
                    // First the image and then its layers: a kill between leaves layers, and no image with holes.
                    Some(_) | None => layers.forget(&name)?,
                }
            }
            let unneeded: Vec<Digest> = layers.kept()?.into_iter().filter(|layer| !needed.contains(layer)).collect();
            unneeded.iter().try_for_each(|layer| layers.remove(layer))?;
            Ok(unneeded.len())
        });
        let failed = |error: tokio::task::JoinError| ImageError::Io {
            action: "tidy",
            path: self.inner().layers().folder().to_owned(),
            source: error.into(),
        };
        removed.await.map_err(failed)?
    }
}
