//! Images at the engine's doors: what there is, building, logs.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::watch;

use super::Engine;
use crate::described::describe_with;
use crate::driver::disk;
use crate::environment::BYTES_MAX;
use crate::error::EngineError;
use crate::images::{How, Image, Images, resolve};
use crate::requests::NewImage;

/// Bytes of a log that are read at once.
const PIECE: usize = 64 << 10;

/// How long a quiet log is not looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Engine {
    /// All images, the oldest first; those of one repository when it is named.
    pub fn images(&self, repository: Option<&str>) -> Vec<Arc<Image>> {
        let mut images = self.inner.house.images.all();
        if let Some(name) = repository {
            images.retain(|image| image.repository == name || image.repository_name() == name);
        }
        images
    }

    /// One image.
    ///
    /// # Errors
    /// There is no such image.
    pub fn image(&self, image_id: &str) -> Result<Arc<Image>, EngineError> {
        self.inner.house.images.get(image_id).ok_or_else(|| EngineError::NoSuchImage(image_id.to_owned()))
    }

    /// Builds an image, or joins whoever builds the same; does not wait for it to be done.
    ///
    /// # Errors
    /// The repository cannot be read or has no such base, the environment that is to be tried cannot be read, or the
    /// disk did not take the record.
    pub async fn build_image(&self, new: NewImage) -> Result<Arc<Image>, EngineError> {
        let NewImage { repository, base, fresh, check, environment } = new;
        let house = &self.inner.house;
        let how = How { fresh, check, trial: environment.is_some() };
        let wanted = resolve(house, &repository, base, how).await;
        let shown = crate::git::display_name(&repository);
        let mut wanted = wanted.map_err(|reason| EngineError::Repository { repository: shown, reason })?;
        if let Some(text) = environment {
            let invalid = |reason: String| EngineError::Invalid(format!("environment: {reason}"));
            if text.len() > BYTES_MAX {
                return Err(invalid(format!("it has {} bytes, at most {BYTES_MAX} are read", text.len())));
            }
            let described = describe_with(&wanted.mirror, &wanted.base.commit, Some(text)).await;
            let described = described.map_err(|error| EngineError::Image(error.to_string()))?;
            if let Some(problem) = described.problems.into_iter().next() {
                return Err(EngineError::Invalid(problem));
            }
            wanted.environment = described.environment;
        }
        let building = Images::build(house, wanted);
        building.begun().await.map_err(EngineError::Image)?;
        self.image(&building.image_id)
    }

    /// The log of an image's making, from a byte on. With `follow`, it goes on until the image is built or has failed.
    ///
    /// # Errors
    /// There is no such image, or its log cannot be read.
    pub async fn image_log(
        &self,
        image_id: &str,
        from: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, EngineError> {
        self.image(image_id)?;
        let images = &self.inner.house.images;
        let path = images.log_path(image_id);
        let mut file = File::open(&path).await.map_err(|error| disk(&path, &error))?;
        file.seek(SeekFrom::Start(from)).await.map_err(|error| disk(&path, &error))?;
        let written = images.log_of(image_id).filter(|_| follow).map(|log| log.hears());
        let following = Following { file, written };
        Ok(stream::try_unfold(following, Following::next).boxed())
    }

    /// Removes an image. Sessions that started from it keep what they need of it.
    ///
    /// # Errors
    /// There is no such image, it is being built, or it could not be removed.
    pub async fn remove_image(&self, image_id: &str) -> Result<(), EngineError> {
        let image = self.image(image_id)?;
        if image.state == crate::images::ImageState::Building {
            return Err(EngineError::Invalid(format!("image {image_id} is being built; wait for its end")));
        }
        let house = &self.inner.house;
        house.images.remove(house, image_id).await.map_err(EngineError::Image)
    }
}

/// A log that is read while it may still be written.
struct Following {
    file: File,
    /// Rung when something is written; closed when nothing more will be.
    written: Option<watch::Receiver<()>>,
}

impl Following {
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let mut piece = vec![0; PIECE];
        loop {
            if let Some(written) = &mut self.written {
                written.mark_unchanged();
            }
            let read = self.file.read(&mut piece).await?;
            if read > 0 {
                piece.truncate(read);
                return Ok(Some((piece.into(), self)));
            }
            let Some(written) = &mut self.written else { return Ok(None) };
            // What was written last is read once more after the end.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, written.changed()).await {
                self.written = None;
            }
        }
    }
}
