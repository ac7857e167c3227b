//! Gets a session's sandbox: the repository's mirror, the door to the gateway, an image, the sandbox itself, and in it the
//! base commit. Every phase is recorded with its time.

use std::sync::{MutexGuard, PoisonError};

use hob_sandbox::{Gate, Sandbox, Token};

use crate::breaker::{self, Breaker};
use crate::config::Wishes;
use crate::described::describe;
use crate::environment::{self, Environment};
use crate::event::EventKind;
use crate::fold::{SessionState, title_of};
use crate::footing::Footing;
use crate::git::{Base, Mirror, forge};
use crate::making::{self, Making};
use crate::owned::{Owned, need_of};
use crate::places;
use crate::pool;

/// What the session knows of its repository when its sandbox starts.
struct Known {
    repository: String,
    base: Option<String>,
    base_commit: Option<String>,
    branch: Option<String>,
    title: String,
}

/// Why there is no sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoStart {
    /// Nobody needs it any more.
    Withdrawn,
    /// The engine shuts down; the next one starts it.
    Closing,
    /// Something failed; words for a person.
    Failed(String),
}

impl From<String> for NoStart {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// A sandbox that has just started, and what its repository wants of it.
pub(crate) struct Started {
    pub(crate) sandbox: Sandbox,
    pub(crate) environment: Environment,
    /// What runs in it already, where it was a warm one.
    pub(crate) running: Option<pool::Running>,
}

/// Gives the sandbox that runs, a warm one, one that is started again from its kept files, or a new one.
///
/// # Errors
/// There is none, and why.
pub(crate) async fn start(owned: &Owned) -> Result<Started, NoStart> {
    // What began in an earlier sandbox is gone with it.
    drop(owned.warm_agent.lock().await.take());
    let started = begin(owned).await;
    // One that was not needed holds no place, and would be behind at the next start.
    owned.discard_warm().await?;
    started
}

async fn begin(owned: &Owned) -> Result<Started, NoStart> {
    // A warm one runs under the session's name too, and is not what an earlier engine left.
    let attached = if owned.has_warm() { None } else { attach(owned).await? };
    if let Some(started) = attached {
        owned.house.places.occupy(owned.id.clone(), owned.house.largest_need());
        return Ok(started);
    }
    let circuit =
        owned.log.read(|state| (state.repository.clone(), state.summary.base.clone().unwrap_or_default())).await;
    refused(breaker(owned).look(&circuit, now_ms(owned)))?;
    let waited = places::enter(owned).await?;
    refused(breaker(owned).begin(&circuit, now_ms(owned)))?;
    let made = make(owned, waited).await;
    match &made {
        Ok(_) => breaker(owned).succeeded(&circuit),
        Err(_) if owned.house.closing.is_cancelled() => return Err(NoStart::Closing),
        Err(reason) => breaker(owned).failed(&circuit, reason, now_ms(owned)),
    }
    Ok(made?)
}

fn breaker(owned: &Owned) -> MutexGuard<'_, Breaker<(String, String)>> {
    owned.house.breaker.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now_ms(owned: &Owned) -> u64 {
    owned.house.deps.clock.now_ms()
}

fn refused(looked: Result<(), breaker::Refusal>) -> Result<(), String> {
    looked.map_err(|refusal| refusal.to_string())
}

/// Makes the sandbox from the repository's image, in the place that it has got.
async fn make(owned: &Owned, waited: EventKind) -> Result<Started, String> {
    let (mirror, base, branch) = owned.phase_after(vec![waited], "workspace", prepare(owned)).await?;
    let described = describe(&mirror, &base.commit).await.map_err(|error| format!("failed to {error}"))?;
    let environment = described.environment;
    owned.house.places.shrink(&owned.id, need_of(&environment.wants.within(owned.house.config.limits.sandbox)));
    let mut notices = [described.problems, described.notices].concat();
    notices.extend(environment::not_yet(&environment, owned.house.config.limits.sandbox));
    tell(owned, notices).await?;
    allow(owned, &environment).await?;
    // The repository may have moved on.
    owned.house.pool.look_again();
    let making = Making { owned, mirror, base, branch, environment };
    if let Some((sandbox, running)) = making.take_from_pool().await? {
        return Ok(Started { sandbox, environment: making.environment, running });
    }
    let sandbox = match making.again().await? {
        Some(sandbox) => sandbox,
        None => making.anew().await?,
    };
    Ok(Started { sandbox, environment: making.environment, running: None })
}

pub(crate) async fn tell(owned: &Owned, notices: Vec<String>) -> Result<(), String> {
    let notices = notices.into_iter().map(|text| EventKind::Notice { text }).collect();
    owned.record(notices).await.map_err(|error| format!("failed to {error}"))
}

/// Tells what of the session's files could not be brought back. An earlier engine may have told it, or have been killed
/// before it did.
pub(crate) async fn tell_lost(owned: &Owned, sandbox: &Sandbox) -> Result<(), String> {
    let told = owned.log.read(|state| state.files_lost.clone()).await;
    let Some(text) = sandbox.lost().filter(|lost| told.as_deref() != Some(lost)) else { return Ok(()) };
    let lost = EventKind::FilesLost { text: text.to_owned() };
    owned.record(vec![lost]).await.map_err(|error| format!("failed to {error}"))
}

/// Takes over the sandbox that an earlier engine left running. Whatever its tools left behind is killed. One whose sync
/// was cut off is made anew.
async fn attach(owned: &Owned) -> Result<Option<Started>, String> {
    let id = owned.sandbox_id()?;
    let provider = &owned.house.deps.provider;
    let attach = provider.attach(&id, owned.epoch, token(owned));
    let found = tokio::time::timeout(owned.house.config.timeouts.sandbox_start, attach).await;
    let sandbox = match found {
        Ok(Ok(sandbox)) => sandbox,
        // It is there but does not answer: what can still be done is to make it anew from its files.
        Ok(Err(error)) => {
            tracing::warn!(session.id = %owned.id, "the sandbox is started again: failed to {error}");
            provider.suspend(&id).await.map_err(|error| format!("failed to {error}"))?;
            None
        }
        Err(_) => None,
    };
    let Some(sandbox) = sandbox else { return Ok(None) };
    // What stands on no image comes from a server that made checkouts, and was complete when it started.
    let is_from_image = Footing::read(&owned.folder()).await?.is_some();
    if is_from_image && (sandbox.gate() == Gate::Closed || !owned.log.read(|state| state.synced).await) {
        // Nobody has written there but a sync that was cut off, and what that has left is no ground for another.
        making::forget(owned).await?;
        return Ok(None);
    }
    let environment = owned
        .phase("sandbox", async {
            let environment = allow_again(owned).await?;
            tell_lost(owned, &sandbox).await?;
            sandbox.kill_all().await.map_err(|error| format!("failed to {error}"))?;
            Ok::<_, String>((environment, Some("taken over".to_owned())))
        })
        .await?;
    Ok(Some(Started { sandbox, environment, running: None }))
}

/// Opens the gateway as far as the operator lets the session's forge and its repository's wishes through.
async fn allow(owned: &Owned, environment: &Environment) -> Result<(), String> {
    let repository = owned.log.read(|state| state.repository.clone()).await;
    let wishes = Wishes { forge: forge(&repository), repository: environment.egress.clone() };
    owned.access().await.map_err(|reason| format!("failed to open the gateway: {reason}"))?;
    let refused = owned.house.deps.doors.allow(&owned.id, &wishes).await;
    tell(owned, refused).await
}

/// Opens the gateway of a sandbox that was taken over as it was before.
async fn allow_again(owned: &Owned) -> Result<Environment, String> {
    let state = |state: &SessionState| (state.repository.clone(), state.summary.base_commit.clone());
    let (repository, commit) = owned.log.read(state).await;
    let mut environment = Environment::default();
    if let Some(commit) = commit {
        let described = describe(&owned.house.mirrors.known(&repository), &commit).await;
        environment = described.map_err(|error| format!("failed to {error}"))?.environment;
    }
    allow(owned, &environment).await?;
    Ok(environment)
}

async fn prepare(owned: &Owned) -> Result<((Mirror, Base, String), Option<String>), String> {
    let known = owned.log.read(|state| Known {
        repository: state.repository.clone(),
        base: state.summary.base.clone(),
        base_commit: state.summary.base_commit.clone(),
        branch: state.summary.branch.clone(),
        title: state.summary.title.clone(),
    });
    let known = known.await;
    let (mirror, base) = match known.base_commit {
        // A session works from one base all its life, however its repository moves on.
        Some(commit) => (owned.house.mirrors.known(&known.repository), Base { commit, branch: None }),
        None => resolve(owned, &known).await?,
    };
    let branch = known.branch.unwrap_or_else(|| branch_name(owned, &known.title));
    let detail = Some(base.commit.clone());
    Ok(((mirror, base, branch), detail))
}

async fn resolve(owned: &Owned, known: &Known) -> Result<(Mirror, Base), String> {
    let failed = |error: crate::git::GitError| format!("failed to {error}");
    let mirror =
        owned.house.mirrors.fetch(&known.repository, owned.house.config.timeouts.fetch).await.map_err(failed)?;
    let base = mirror.resolve(known.base.as_deref()).await.map_err(failed)?;
    let branch = branch_name(owned, &known.title);
    let resolved = EventKind::BaseResolved { commit: base.commit.clone(), branch };
    owned.record(vec![resolved]).await.map_err(|error| format!("failed to {error}"))?;
    Ok((mirror, base))
}

pub(crate) fn token(owned: &Owned) -> Token {
    Token(format!("{}{}", owned.house.deps.ids.next(), owned.house.deps.ids.next()))
}

/// `hob/<first letters of the session's ID>-<words of its title>`.
fn branch_name(owned: &Owned, title: &str) -> String {
    let short = owned.id.short();
    let words = slug(&title_of(title));
    if words.is_empty() { format!("hob/{short}") } else { format!("hob/{short}-{words}") }
}

/// The words of a title as a branch can hold them: `a-z`, `0-9` and `-`, at most 40 characters.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for letter in title.chars().map(|c| c.to_ascii_lowercase()) {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 40 {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn a_branch_is_named_after_the_words_of_the_prompt() {
        assert_eq!(slug("Fix the parser's off-by-one!"), "fix-the-parser-s-off-by-one");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert_eq!(slug("日本語"), "");
        assert!(slug(&"word ".repeat(50)).len() <= 40);
    }
}
