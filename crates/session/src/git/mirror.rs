//! The server's own bare copy of a repository: where workspaces come from and results arrive.
//!
//! Upstream branches are kept under `refs/remotes/origin/`, sessions' branches under `refs/heads/hob/`, so that neither
//! can overwrite the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::refs::{self, Refs};
use super::run::{Git, Identity};
use super::{GitError, display_name};
use crate::described::Descriptions;

/// How long a call may take that stays on this machine.
pub(super) const LOCAL_DEADLINE: Duration = Duration::from_secs(120);

/// The file in a mirror that says what its source had when all of that was fetched.
const NOTED: &str = "hob-refs";

/// The mirrors of every repository that Hob knows, in one folder.
#[derive(Debug)]
pub struct Mirrors {
    folder: PathBuf,
    /// One lock for each repository: two sessions that start at once share one fetch's work instead of racing.
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// What was read of them lately.
    described: Arc<Descriptions>,
}

impl Mirrors {
    /// Mirrors in a folder of the data directory; it is made when the first repository comes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), locks: Mutex::default(), described: Arc::default() }
    }

    /// The mirror of a repository, a local path or a URL, as fresh as its source is now.
    ///
    /// # Errors
    /// The repository cannot be read, has no commits, or did not answer within `deadline`.
    pub async fn fetch(&self, source: &str, deadline: Duration) -> Result<Mirror, GitError> {
        let mirror = self.known(source);
        let lock = self.locks.lock().await.entry(mirror.source.clone()).or_default().clone();
        let _held = lock.lock().await;
        let refs = mirror.update(deadline).await?;
        Ok(Mirror { refs, ..mirror })
    }

    /// The mirror of a repository as it is, without a look at its source.
    pub fn known(&self, source: &str) -> Mirror {
        let name = hex(&Sha256::digest(source.as_bytes())[..12]);
        let folder = self.folder.join(format!("{name}.git"));
        Mirror { source: source.to_owned(), folder, refs: None, described: Arc::clone(&self.described) }
    }
}

/// The server's bare copy of one repository.
#[derive(Debug, Clone)]
pub struct Mirror {
    source: String,
    folder: PathBuf,
    /// What the source has, where the mirror has just been found to have all of it.
    refs: Option<Arc<Refs>>,
    /// What was read of commits lately, of this one and of others.
    pub(crate) described: Arc<Descriptions>,
}

/// Where a session's work starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The commit's full ID.
    pub commit: String,
    /// The branch that it was asked for by; absent for a tag or a commit.
    pub branch: Option<String>,
}

/// The size of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Files changed.
    pub files_changed: u32,
    /// Lines added.
    pub insertions: u32,
    /// Lines removed.
    pub deletions: u32,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The remote has the branch.
    Pushed {
        /// The remote, without credentials.
        remote: String,
    },
    /// The remote was left alone.
    NotPushed {
        /// Why, and what to do instead.
        reason: String,
    },
}

impl Mirror {
    /// The mirror's folder: a bare repository that `git fetch` can read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The repository as it was asked for: a path or a URL, which may hold credentials.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The commit that a branch, a tag or a commit ID names; the source's own `HEAD` when absent.
    ///
    /// # Errors
    /// There is no such thing; the error lists a few branches.
    pub async fn resolve(&self, base: Option<&str>) -> Result<Base, GitError> {
        if let Some(known) = self.refs.as_ref().and_then(|refs| refs.resolve(base)) {
            return Ok(known);
        }
        let Some(base) = base else {
            let commit =
                self.local("read the repository's HEAD").line(["rev-parse", "--verify", "refs/hob/head"]).await?;
            let branch = self.local("read the repository's HEAD").line(["config", "--default", "", "hob.head"]).await?;
            return Ok(Base { commit, branch: (!branch.is_empty()).then_some(branch) });
        };
        let candidates = [
            (format!("refs/remotes/origin/{base}^{{commit}}"), Some(base.to_owned())),
            (format!("refs/tags/{base}^{{commit}}"), None),
            (format!("{base}^{{commit}}"), None),
        ];
        for (revision, branch) in candidates {
            // A base such as `@{-1}` or `:/text` would be looked up by rules that a person does not mean here.
            if base.starts_with(['-', ':', '@', '^']) {
                break;
            }
            let found =
                self.local("look up the base").line(["rev-parse", "--verify", "--end-of-options", &revision]).await;
            if let Ok(commit) = found {
                return Ok(Base { commit, branch });
            }
        }
        let branches = self.branches().await?;
        Err(GitError::UnknownBase { base: base.to_owned(), repository: display_name(&self.source), branches })
    }

    /// The paths of a commit's plain files, from its top folder, with `/`. Links and submodules are left out.
    ///
    /// # Errors
    /// The commit is not in the mirror.
    pub async fn files(&self, commit: &str) -> Result<Vec<String>, GitError> {
        let arguments = ["ls-tree", "-r", "-z", "--end-of-options", commit];
        let listing = self.local("list the files of the commit").run(arguments).await?;
        let listing = String::from_utf8_lossy(&listing).into_owned();
        let plain =
            |entry: &str| entry.starts_with("100").then(|| entry.split_once('\t'))?.map(|(_, path)| path.to_owned());
        Ok(listing.split('\0').filter_map(plain).collect())
    }

    /// A file's text in a commit, as far as it is UTF-8; `None` where there is no such plain file, or it is larger than
    /// 1 MiB.
    ///
    /// # Errors
    /// The commit is not in the mirror.
    pub async fn file(&self, commit: &str, path: &str) -> Result<Option<String>, GitError> {
        let find = self.local("look for a file of the commit");
        let entry = find.line(["ls-tree", "-l", "--end-of-options", commit, "--", path]).await?;
        let mut columns = entry.split_whitespace();
        let (mode, blob, size) = (columns.next(), columns.nth(1), columns.next());
        let small = size.and_then(|size| size.parse::<u64>().ok()).is_some_and(|size| size <= 1 << 20);
        let (Some(blob), true) = (blob, small && mode.is_some_and(|mode| mode.starts_with("100"))) else {
            return Ok(None);
        };
        let bytes = self.local("read a file of the commit").run(["cat-file", "blob", blob]).await?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The ID of a commit's tree.
    ///
    /// # Errors
    /// The commit is not in the mirror.
    pub async fn tree(&self, commit: &str) -> Result<String, GitError> {
        let revision = format!("{commit}^{{tree}}");
        self.local("read the commit's tree").line(["rev-parse", "--verify", "--end-of-options", &revision]).await
    }

    /// Puts a session's branch where the session's log says that it is, or removes it where the log has no commit.
    ///
    /// # Errors
    /// There is no mirror, or git failed.
    pub async fn put_branch(&self, branch: &str, commit: Option<&str>) -> Result<(), GitError> {
        let tip = format!("refs/heads/{branch}");
        let update = self.local("put the branch where the log says");
        match commit {
            Some(commit) => update.run(["update-ref", &tip, commit]).await.map(drop),
            None => update.run(["update-ref", "-d", &tip]).await.map(drop),
        }
    }

    /// The size of the change between two commits.
    ///
    /// # Errors
    /// One of them is not in the mirror.
    pub async fn stat(&self, from: &str, to: &str) -> Result<Stat, GitError> {
        let arguments = ["diff", "--numstat", "--no-ext-diff", "--no-textconv", "--end-of-options", from, to];
        let listing = self.local("measure the change").line(arguments).await?;
        Ok(listing.lines().fold(Stat::default(), |stat, line| {
            let mut columns = line.split('\t').map(|count| count.parse().unwrap_or(0));
            Stat {
                files_changed: stat.files_changed + 1,
                insertions: stat.insertions.saturating_add(columns.next().unwrap_or(0)),
                deletions: stat.deletions.saturating_add(columns.next().unwrap_or(0)),
            }
        }))
    }

    /// The change between two commits as a unified diff.
    ///
    /// # Errors
    /// One of them is not in the mirror.
    pub async fn diff(&self, from: &str, to: &str) -> Result<String, GitError> {
        let arguments = ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "-M", "--end-of-options", from, to];
        let diff = self.local("read the change").run(arguments).await?;
        Ok(String::from_utf8_lossy(&diff).into_owned())
    }

    /// A session's branch as a bundle that any git can fetch from, without what the base already has.
    ///
    /// # Errors
    /// The branch is not in the mirror.
    pub async fn bundle(&self, branch: &str, base: &str) -> Result<Vec<u8>, GitError> {
        let tip = format!("refs/heads/{branch}");
        let exclude = format!("^{base}");
        self.local("bundle the branch").run(["bundle", "create", "--quiet", "-", &tip, &exclude]).await
    }

    /// Pushes a session's branch to the repository, with the server's own git and the person's ambient credentials.
    ///
    /// A local folder with a checkout is left alone: its owner fetches the branch with `hob pull`.
    ///
    /// # Errors
    /// The remote refused, or did not answer within `deadline`.
    pub async fn push(&self, branch: &str, deadline: Duration) -> Result<PushOutcome, GitError> {
        if !is_remote(&self.source) && !self.is_bare_folder().await {
            let reason = "the repository is a local checkout; fetch the branch with `hob pull`".to_owned();
            return Ok(PushOutcome::NotPushed { reason });
        }
        let refspec = format!("+refs/heads/{branch}:refs/heads/{branch}");
        let push = Git { folder: &self.folder, identity: Identity::Person, action: "push the branch", deadline };
        push.run(["push", "--quiet", "--no-verify", "--end-of-options", "origin", &refspec]).await?;
        Ok(PushOutcome::Pushed { remote: display_name(&self.source) })
    }

    /// Fetches what the source has and the mirror has not. Gives what the source has, where that was nothing.
    async fn update(&self, deadline: Duration) -> Result<Option<Arc<Refs>>, GitError> {
        let answer = self.ask(deadline).await?;
        let noted = self.folder.join(NOTED);
        let known = tokio::fs::read_to_string(&noted).await.unwrap_or_default();
        let refs = Refs::read(&answer);
        if known == answer {
            return Ok(Some(Arc::new(refs)));
        }
        if !self.folder.join("HEAD").exists() {
            self.init().await?;
        }
        let arguments =
            ["fetch", "--quiet", "--prune", "--no-recurse-submodules", "origin", "+refs/heads/*:refs/remotes/origin/*"];
        let rest = ["+refs/tags/*:refs/tags/*", "+HEAD:refs/hob/head"];
        let fetch = Git { folder: &self.folder, identity: Identity::Person, action: "fetch the repository", deadline };
        fetch.run(arguments.iter().chain(&rest)).await.map_err(|error| self.unreachable(error))?;
        let head = refs.head.clone().unwrap_or_default();
        self.local("note the default branch").run(["config", "hob.head", &head]).await?;
        let listing = ["for-each-ref", "--format=%(objectname) %(refname:lstrip=3)", "refs/remotes/origin"];
        let branches = self.local("list what was fetched").line(listing).await?;
        // Not where the source has moved on between the two. Where it is lost, the next start fetches in vain.
        if refs.has_branches(&branches)
            && let Err(error) = tokio::fs::write(&noted, &answer).await
        {
            tracing::warn!(file = %noted.display(), "what was fetched is not noted: {error}");
        }
        Ok(None)
    }

    /// What the source has: its `HEAD`, branches and tags.
    async fn ask(&self, deadline: Duration) -> Result<String, GitError> {
        let repository = display_name(&self.source);
        if self.source.starts_with('-') || self.source.contains("::") {
            let reason = "a repository is a path or a URL".to_owned();
            return Err(GitError::Unreachable { repository, reason });
        }
        let ask = Git { folder: Path::new("/"), identity: Identity::Person, action: "read the repository", deadline };
        let arguments = ["ls-remote", "--symref", "--", &self.source];
        let answer = ask.line(arguments.iter().chain(&refs::PATTERNS)).await;
        let answer = answer.map_err(|error| self.unreachable(error))?;
        if !answer.lines().any(|line| line.ends_with("\tHEAD")) {
            return Err(GitError::Empty { repository });
        }
        Ok(answer)
    }

    /// Makes the bare repository beside its place and moves it there, so that a half-made one is never used.
    async fn init(&self) -> Result<(), GitError> {
        let making = self.folder.with_extension("making");
        let failed = |error: std::io::Error| GitError::Command { action: "make the mirror", reason: error.to_string() };
        if tokio::fs::try_exists(&making).await.map_err(failed)? {
            tokio::fs::remove_dir_all(&making).await.map_err(failed)?;
        }
        tokio::fs::create_dir_all(&making).await.map_err(failed)?;
        let inside = |action| Git { folder: &making, identity: Identity::Nobody, action, deadline: LOCAL_DEADLINE };
        inside("make the mirror").run(["init", "--quiet", "--bare", "--template="]).await?;
        inside("name the mirror's origin").run(["config", "remote.origin.url", &self.source]).await?;
        tokio::fs::rename(&making, &self.folder).await.map_err(failed)
    }

    async fn branches(&self) -> Result<String, GitError> {
        let arguments = [
            "for-each-ref",
            "--count=8",
            "--sort=-committerdate",
            "--format=%(refname:lstrip=3)",
            "refs/remotes/origin",
        ];
        let list = self.local("list the branches").line(arguments).await?;
        Ok(list.lines().collect::<Vec<_>>().join(", "))
    }

    async fn is_bare_folder(&self) -> bool {
        let folder = Path::new(&self.source);
        let ask =
            Git { folder, identity: Identity::Nobody, action: "look at the repository", deadline: LOCAL_DEADLINE };
        ask.line(["rev-parse", "--is-bare-repository"]).await.is_ok_and(|answer| answer == "true")
    }

    fn unreachable(&self, error: GitError) -> GitError {
        let repository = display_name(&self.source);
        match error {
            GitError::Command { reason, .. } => {
                GitError::Unreachable { reason: reason.replace(&self.source, &repository), repository }
            }
            other => other,
        }
    }

    pub(super) fn local(&self, action: &'static str) -> Git<'_> {
        Git { folder: &self.folder, identity: Identity::Nobody, action, deadline: LOCAL_DEADLINE }
    }
}

/// Whether a repository is reached over a network: `scheme://…`, or `host:path` as SSH writes it.
pub(super) fn is_remote(source: &str) -> bool {
    match source.split_once("://") {
        Some((scheme, _)) => scheme != "file",
        None => source.split_once(':').is_some_and(|(host, _)| !host.contains('/')),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
