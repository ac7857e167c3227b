//! Unpacks an archive that belongs to no image, with the same care.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::budget::{Budget, ImageLimits};
use super::error::LayerError;
use super::inflate::{Packing, inflate};
use super::unpack::unpack;

/// Unpacks an archive that is packed with gzip into the empty folder `into`.
///
/// # Errors
/// An entry was refused, or a limit reached. What is in the folder then is to be thrown away.
pub(crate) fn unpack_loose(archive: impl Read, into: &Path, limits: ImageLimits) -> Result<(), LayerError> {
    let budget = Budget::new(limits, Instant::now(), CancellationToken::new());
    let archive = Archive::new(inflate(Packing::Gzip, archive), &budget, into);
    unpack(archive, into, &budget).map(drop)
}
