//! A session that waits for an image, and records how far its making is.

use std::sync::Arc;
use std::time::Instant;

use super::image::{Image, StageName};
use super::lease::Building;
use crate::event::{EventKind, PhaseStatus};
use crate::owned::{House, Owned, millis};

/// Why a building may end without a word.
const CLOSING: &str = "the server is shutting down";

/// Waits until an image is built, or has failed and something stands in for it: then beside it, what is to be said.
///
/// # Errors
/// There is none to start from; words for a person.
pub(crate) async fn wait_for(owned: &Owned, building: &Building) -> Result<(Arc<Image>, Option<String>), String> {
    let mut progress = building.watch();
    let mut open: Option<(StageName, Instant)> = None;
    loop {
        let now = progress.borrow_and_update().clone();
        let moved = now.stage != open.map(|(stage, _)| stage);
        let mut events = Vec::new();
        if moved || now.outcome.is_some() {
            events.extend(open.take().map(|(stage, begun)| ended(stage, begun)));
        }
        if let (Some(stage), None) = (now.stage, &now.outcome)
            && moved
        {
            open = Some((stage, Instant::now()));
            events.push(phase(stage, PhaseStatus::Started, None));
        }
        owned.record(events).await.map_err(|error| format!("failed to {error}"))?;
        if let Some(outcome) = now.outcome {
            return judge(&owned.house, outcome?);
        }
        if progress.changed().await.is_err() {
            return Err(CLOSING.to_owned());
        }
    }
}

/// Waits likewise where nobody looks on.
///
/// # Errors
/// There is none to start from; words for a person.
pub(crate) async fn built(house: &House, building: &Building) -> Result<(Arc<Image>, Option<String>), String> {
    let mut progress = building.watch();
    let over = progress.wait_for(|progress| progress.outcome.is_some()).await;
    let outcome = over.ok().and_then(|progress| progress.outcome.clone());
    judge(house, outcome.unwrap_or_else(|| Err(CLOSING.to_owned()))?)
}

fn judge(house: &House, image: Arc<Image>) -> Result<(Arc<Image>, Option<String>), String> {
    if image.is_ready() {
        return Ok((image, None));
    }
    if let Some((stand_in, said)) = house.images.instead_of(&image) {
        return Ok((stand_in, Some(said)));
    }
    let reason = image.reason.as_deref().unwrap_or("it was not finished");
    let id = &image.image_id;
    Err(format!("failed to build the image: {reason}; hob image log {id} shows the whole log"))
}

fn ended(stage: StageName, begun: Instant) -> EventKind {
    phase(stage, PhaseStatus::Ended, Some(millis(begun.elapsed())))
}

fn phase(stage: StageName, status: PhaseStatus, elapsed_ms: Option<u64>) -> EventKind {
    EventKind::Phase { name: stage.as_str().to_owned(), status, elapsed_ms, detail: None }
}
