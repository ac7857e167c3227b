//! What is done about images while nobody asks: those whose branch has moved on are built again, those that nobody needs
//! are removed. What to do is decided purely, and then done.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use hob_sandbox::image::Digest;

use super::image::{Image, ImageState};
use super::recipe::Recipe;
use super::{How, Images, RUNTIME, Wanted, base};
use crate::config::ImageRules;
use crate::described::describe;
use crate::environment;
use crate::footing::Footing;
use crate::owned::{House, millis};

/// Branches that are remembered as asked for, at most; the one that was asked for longest ago is forgotten.
const ASKED_MAX: usize = 256;

/// How long after its beginning an image on a base that others publish is built again, moved on or not.
const BASE_AGE_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// A repository, and what was asked for of it.
type Key = (String, Option<String>);

/// Keeps images up until the engine shuts down.
pub(crate) fn keep_up(house: &Arc<House>) {
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let closing = house.closing.clone();
        let every = house.config.images.rebuild_every;
        // Not at once: a server that has just started has better things to do.
        while closing.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            closing.run_until_cancelled(tick(&house)).await;
        }
    });
}

async fn tick(house: &Arc<House>) {
    let now_ms = house.deps.clock.now_ms();
    for key in house.images.in_use(now_ms, &house.config.images) {
        if let Err(reason) = renew(house, key.clone(), now_ms).await {
            tracing::warn!(repository = crate::git::display_name(&key.0), "its image is not renewed: {reason}");
        }
    }
    if let Err(reason) = collect(house).await {
        tracing::warn!("images that nobody needs may stay: {reason}");
    }
}

/// Builds the image of a branch again, where it is not what the branch asks for any more.
async fn renew(house: &Arc<House>, (repository, asked): Key, now_ms: u64) -> Result<(), String> {
    let wanted = resolve(house, &repository, asked, How::default()).await?;
    // A tag or a commit does not move on.
    if wanted.base.branch.is_none() {
        return Ok(());
    }
    let images = house.images.catalogue.of_repository(&repository);
    let digest = |image: &Image| match wanted.environment.base {
        environment::Base::Host => base::host(&house.config.base).digest,
        _ => image.base_digest.clone(),
    };
    let latest = images.iter().rfind(|image| image.asked == wanted.asked && !image.trial);
    let is_right = latest.is_some_and(|image| {
        let recipe = Recipe::new(&wanted.environment, &digest(image), RUNTIME);
        let too_old = wanted.environment.base != environment::Base::Host
            && now_ms.saturating_sub(image.begun_ms) > BASE_AGE_MAX_MS;
        // One that has failed on this commit fails again.
        let tried = image.held.commit == wanted.base.commit || image.commit == wanted.base.commit;
        tried && image.fingerprints == recipe.fingerprints && !too_old
    });
    if !is_right {
        Images::build(house, wanted);
    }
    Ok(())
}

/// What a branch asks for now.
///
/// # Errors
/// The repository cannot be read; words for a person.
pub(crate) async fn resolve(
    house: &Arc<House>,
    repository: &str,
    asked: Option<String>,
    how: How,
) -> Result<Wanted, String> {
    let failed = |error: crate::git::GitError| format!("failed to {error}");
    let mirror = house.mirrors.fetch(repository, house.config.timeouts.fetch).await.map_err(failed)?;
    let base = mirror.resolve(asked.as_deref()).await.map_err(failed)?;
    let environment = describe(&mirror, &base.commit).await.map_err(failed)?.environment;
    Ok(Wanted { mirror, repository: repository.to_owned(), asked, base, environment, how })
}

/// Removes the images that nobody needs, and the bases that then belong to none.
async fn collect(house: &Arc<House>) -> Result<(), String> {
    let images = house.images.catalogue.all();
    for image_id in unneeded(&images, &house.config.images, house.deps.clock.now_ms()) {
        tracing::info!(image.id = image_id, "an image is removed that nobody needs");
        house.images.remove(house, &image_id).await?;
    }
    let mut used: BTreeSet<Digest> =
        house.images.catalogue.all().iter().filter_map(|image| Digest::parse(&image.base_digest)).collect();
    used.extend(of_sessions(&house.config.data_dir.join("sessions")).await?);
    house.images.store.remove_unused(&used).await.map(drop).map_err(|error| format!("failed to {error}"))
}

/// The bases that sessions stand on.
async fn of_sessions(folder: &Path) -> Result<BTreeSet<Digest>, String> {
    let failed = |error: std::io::Error| format!("failed to list {}: {error}", folder.display());
    let mut used = BTreeSet::new();
    let mut entries = match tokio::fs::read_dir(folder).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(used),
        entries => entries.map_err(failed)?,
    };
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        // One that cannot be read may stand on any.
        let footing = Footing::read(&entry.path()).await?;
        used.extend(footing.and_then(|footing| Digest::parse(&footing.base_digest)));
    }
    Ok(used)
}

/// The images that are to be removed: those that a newer one has taken the place of, those that no session started from
/// for long, and of the rest the longest unused, as long as all together are too large.
fn unneeded(images: &[Arc<Image>], rules: &ImageRules, now_ms: u64) -> Vec<String> {
    let age = |image: &Image| now_ms.saturating_sub(last_use(image));
    let is_current = |image: &Arc<Image>| {
        let newer = |other: &&Arc<Image>| {
            other.repository == image.repository && other.asked == image.asked && other.begun_ms > image.begun_ms
        };
        // A failed one says how it stands, until the next is ready; a good one is needed until then.
        !images.iter().filter(newer).any(|other| other.is_ready() || !image.is_ready())
    };
    let done = images.iter().filter(|image| image.state != ImageState::Building);
    let (mut kept, gone): (Vec<_>, Vec<_>) = done
        .partition(|image| is_current(image) && age(image) < millis(rules.keep_for) && !is_old_trial(image, now_ms));
    let mut gone: Vec<String> = gone.into_iter().map(|image| image.image_id.clone()).collect();
    kept.sort_by_key(|image| last_use(image));
    let mut bytes: u64 = kept.iter().map(|image| image.bytes).sum();
    for image in kept {
        if bytes <= rules.bytes_max {
            break;
        }
        bytes = bytes.saturating_sub(image.bytes);
        gone.push(image.image_id.clone());
    }
    gone
}

fn last_use(image: &Image) -> u64 {
    image.used_ms.max(image.begun_ms)
}

fn is_old_trial(image: &Image, now_ms: u64) -> bool {
    image.trial && now_ms.saturating_sub(image.begun_ms) > BASE_AGE_MAX_MS
}

impl Images {
    /// Notes what a session asks for, so that its image is kept up.
    pub(super) fn asked_for(&self, wanted: &Wanted, now_ms: u64) {
        let mut asked = self.asked();
        asked.insert((wanted.repository.clone(), wanted.asked.clone()), now_ms);
        if asked.len() > ASKED_MAX
            && let Some(oldest) = asked.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(key, _)| key.clone())
        {
            asked.remove(&oldest);
        }
    }

    /// What sessions asked for lately.
    fn in_use(&self, now_ms: u64, rules: &ImageRules) -> BTreeSet<Key> {
        let lately = |at_ms: u64| now_ms.saturating_sub(at_ms) < millis(rules.keep_for);
        let mut keys: BTreeSet<Key> =
            self.asked().iter().filter(|(_, at_ms)| lately(**at_ms)).map(|(key, _)| key.clone()).collect();
        let images = self.catalogue.all();
        let used = images.iter().filter(|image| !image.trial && lately(last_use(image)));
        keys.extend(used.map(|image| (image.repository.clone(), image.asked.clone())));
        keys
    }

    fn asked(&self) -> MutexGuard<'_, std::collections::BTreeMap<Key, u64>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::recipe::tests::image;
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn rules(bytes_max: u64) -> ImageRules {
        ImageRules { keep_for: Duration::from_hours(24 * 14), bytes_max, ..ImageRules::default() }
    }

    #[track_caller]
    fn check(images: Vec<Image>, bytes_max: u64, now_ms: u64, expect: &[&str]) {
        let images: Vec<Arc<Image>> = images.into_iter().map(Arc::new).collect();
        assert_eq!(unneeded(&images, &rules(bytes_max), now_ms), expect);
    }

    #[test]
    fn one_image_of_a_branch_stays_and_a_failed_one_takes_nobodys_place() {
        let failed = |image: Image| Image { state: ImageState::Failed, ..image };
        check(vec![image("a", 1), image("a", 2), image("b", 3)], 100, 9, &["i1"]);
        check(vec![image("a", 1), failed(image("a", 2))], 100, 9, &[]);
        check(vec![failed(image("a", 1)), failed(image("a", 2))], 100, 9, &["i1"]);
        check(vec![failed(image("a", 1)), image("a", 2)], 100, 9, &["i1"]);
        let other = Image { asked: Some("next".to_owned()), ..image("a", 2) };
        check(vec![image("a", 1), other], 100, 9, &[]);
        check(vec![image("a", 1), Image { state: ImageState::Building, ..image("a", 2) }], 100, 9, &[]);
    }

    #[test]
    fn what_no_session_started_from_goes_by_age_and_by_size() {
        let used = |image: Image, used_ms| Image { used_ms, bytes: 60, ..image };
        check(vec![used(image("a", 1), 2 * DAY_MS), image("b", 1)], 100, 15 * DAY_MS, &["i1"]);
        check(vec![used(image("a", 1), 7), used(image("b", 2), 5), used(image("c", 3), 9)], 120, 9, &["i2"]);
        check(vec![used(image("a", 1), 7), used(image("b", 2), 5), used(image("c", 3), 9)], 60, 9, &["i2", "i1"]);
    }

    #[test]
    fn an_image_to_look_at_goes_after_a_day() {
        let trial = Image { trial: true, ..image("a", 1) };
        check(vec![trial.clone(), image("a", 2)], 100, 9, &["i1"]);
        check(vec![image("b", 1), trial.clone()], 100, DAY_MS, &[]);
        check(vec![trial], 100, 2 + DAY_MS, &["i1"]);
    }
}
