//! The task that keeps the pool: it looks at what is wanted and what is there, and has the difference made or removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::book::{Going, Tip};
use super::kind::Kind;
use super::memory::{Pressure, pressure};
use super::plan::Act;
use super::warm::{self, Warm};
use crate::described::describe;
use crate::git::GitError;
use crate::id::SessionId;
use crate::images::{How, Images, Wanted};
use crate::owned::House;
use crate::requests::Summary;
use crate::store::ListQuery;

/// From one look to the next at most: what is typed expires, and memory runs short, without anybody ringing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From one look to the next at least.
const REST: Duration = Duration::from_millis(20);

/// Sessions that are looked at for what was used before this engine.
const REMEMBERED: u32 = 50;

/// How long the removal of everything may take when the engine shuts down. What is left goes with the next sweep.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// Keeps the pool until the engine shuts down, and leaves none behind.
pub(crate) fn keep(house: &Arc<House>) {
    if !house.pool.is_on() {
        return;
    }
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let every = LOOK_EVERY.min(house.pool.rules.typing_for / 4);
        let mut shifted = house.places.watch();
        remember(&house).await;
        while !house.closing.is_cancelled() {
            round(&house).await;
            tokio::select! {
                () = house.closing.cancelled() => {}
                // The sender lives as long as the house.
                _ = shifted.changed() => {}
                () = house.pool.bell.notified() => {}
                () = tokio::time::sleep(every) => {}
            }
            house.closing.run_until_cancelled(tokio::time::sleep(REST)).await;
        }
        leave(&house).await;
    });
}

/// Takes up what was used before this engine, and what those repositories say.
async fn remember(house: &Arc<House>) {
    let query = ListQuery { state: None, repository: None, author_email: None, limit: REMEMBERED, after: None };
    let sessions = match house.store.list(query).await {
        Ok((sessions, _)) => sessions,
        Err(error) => return tracing::warn!("the pool begins empty: failed to {error}"),
    };
    let mut kinds = BTreeSet::new();
    for session in sessions {
        let Summary { repository, base, agent, model, author, created_ms, .. } = session;
        let kind = Kind::new(&repository, base.as_deref(), &agent, &model);
        house.pool.book().demand.used(&kind, &author.email, created_ms);
        kinds.insert(kind);
    }
    for kind in kinds {
        // A repository that was never fetched says nothing.
        if let Ok((_, fixed)) = tip(house, &kind).await {
            house.pool.book().demand.fix(&kind, fixed);
        }
    }
}

async fn round(house: &Arc<House>) {
    let pool = &house.pool;
    let behind = std::mem::take(&mut pool.book().is_behind);
    if behind {
        look(house).await;
    }
    let pressure = pressure(&pool.rules.meminfo, pool.rules.memory_reserve_bytes).await;
    let room = if pressure == Pressure::High { 0 } else { house.places.room(house.largest_need()) };
    let now_ms = house.deps.clock.now_ms();
    let acts = pool.book().plan(now_ms, room, pressure == Pressure::None, &pool.rules);
    for act in acts {
        match act {
            Act::Make(kind) => begin(house, kind),
            Act::Remove(id) => remove(house, &id),
        }
    }
}

/// Finds out what the newest of each kind in the pool is.
async fn look(house: &Arc<House>) {
    let kinds: Vec<Kind> = house.pool.book().tips.keys().cloned().collect();
    for kind in kinds {
        match tip(house, &kind).await {
            Ok((Some(tip), fixed)) => {
                let mut book = house.pool.book();
                book.demand.fix(&kind, fixed);
                book.tips.insert(kind, tip);
            }
            // Its image is being built: what there is stays until that is complete.
            Ok((None, _)) => {}
            Err(error) => tracing::warn!("a pool is not looked after: failed to {error}"),
        }
    }
}

async fn tip(house: &Arc<House>, kind: &Kind) -> Result<(Option<Tip>, Option<u32>), GitError> {
    let mirror = house.mirrors.known(&kind.repository);
    let base = mirror.resolve(kind.asked.as_deref()).await?;
    let environment = describe(&mirror, &base.commit).await?.environment;
    let (commit, fixed) = (base.commit.clone(), environment.pool);
    let (repository, asked) = (kind.repository.clone(), kind.asked.clone());
    let image = Images::ready(house, &Wanted { mirror, repository, asked, base, environment, how: How::default() });
    Ok((image.map(|image| Tip { commit, image_id: image.image_id.clone() }), fixed))
}

/// Has one made, in a task of its own.
fn begin(house: &Arc<House>, kind: Kind) {
    let Ok(id) = SessionId::new(house.deps.ids.next()) else { return };
    let cancel = house.closing.child_token();
    let mailbox = house.pool.book().begin(id.clone(), kind.clone(), cancel.clone());
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let making = async {
            let prepared = warm::prepare(&house, &kind).await?;
            house.pool.book().demand.fix(&kind, prepared.environment.pool);
            let _turn = house.pool.turns.acquire().await.map_err(|error| error.to_string())?;
            let tip = Tip { commit: prepared.base.commit.clone(), image_id: prepared.image.image_id.clone() };
            let warm = warm::make(&house, &kind, &id, mailbox, prepared).await?;
            Ok::<_, String>((warm, tip))
        };
        match cancel.run_until_cancelled(making).await {
            Some(Ok((warm, tip))) => made(&house, kind, warm, tip).await,
            Some(Err(reason)) => {
                tracing::warn!(sandbox.id = %id, "no sandbox is kept warm: {reason}");
                house.pool.book().demand.failed(&kind, house.deps.clock.now_ms(), &house.pool.rules);
                give_up(&house, &id).await;
            }
            None => give_up(&house, &id).await,
        }
        house.pool.ring();
    });
}

async fn made(house: &Arc<House>, kind: Kind, warm: Warm, tip: Tip) {
    let (id, sandbox) = (warm.id.clone(), warm.sandbox.clone());
    let unwanted = {
        let mut book = house.pool.book();
        // Which of two is the newer one, a look will tell.
        book.is_behind |= book.tips.get(&kind).is_some_and(|known| *known != tip);
        book.tips.entry(kind).or_insert(tip);
        book.made(warm)
    };
    if let Some(warm) = unwanted {
        drop(warm);
        return warm::remove(house, &id).await;
    }
    let house = Arc::clone(house);
    let closing = house.closing.clone();
    house.tracker.clone().spawn(async move {
        // As long as the sandbox lives; who takes it watches it too.
        if closing.run_until_cancelled(sandbox.closed()).await.is_some() {
            remove(&house, &id);
        }
    });
}

async fn give_up(house: &House, id: &SessionId) {
    warm::remove(house, id).await;
    drop(house.pool.book().take_out(id));
}

/// Has the image of a kind built, where no sandboxes are kept warm. Not more than a few at once, and who comes too soon
/// finds it built when the session starts.
pub(crate) fn build_ahead(house: &Arc<House>, kind: Kind) {
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let Ok(_turn) = house.pool.turns.try_acquire() else { return };
        let closing = house.closing.clone();
        if let Some(Err(reason)) = closing.run_until_cancelled(warm::prepare(&house, &kind)).await {
            tracing::warn!("an image is not built ahead: {reason}");
        }
    });
}

/// Removes one that no session has claimed meanwhile.
fn remove(house: &Arc<House>, id: &SessionId) {
    let Some(Going::Ready(warm)) = house.pool.book().take_out(id) else { return };
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let id = warm.id.clone();
        drop(warm);
        warm::remove(&house, &id).await;
        house.pool.ring();
    });
}

/// Removes all that no session has claimed.
async fn leave(house: &Arc<House>) {
    let gone = house.pool.book().unclaimed().into_iter().filter_map(|id| match house.pool.book().take_out(&id)? {
        Going::Ready(warm) => Some(async move {
            drop(warm);
            warm::remove(house, &id).await;
        }),
        // Its own task removes it: it was cancelled with the engine.
        Going::Making => None,
    });
    let gone: Vec<_> = gone.collect();
    if tokio::time::timeout(LEAVE_LIMIT, futures_util::future::join_all(gone)).await.is_err() {
        tracing::warn!("warm sandboxes are left until the next start");
    }
}
