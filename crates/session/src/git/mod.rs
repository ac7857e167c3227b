//! Git on both sides of the sandbox's wall.
//!
//! On the host, a bare [`Mirror`] per repository: fetched with the person's own credentials, the source of all
//! workspaces and the only place where results arrive. [`carry`] brings commits into a sandbox. Inside, [`inside`] reads
//! trees, makes commits and bundles. The host never runs git in a folder that a sandbox could have written, and no git
//! credential ever enters a sandbox.

pub mod carry;
pub mod inside;
mod mirror;
mod receive;
mod refs;
mod run;

pub use mirror::{Base, Mirror, Mirrors, PushOutcome, Stat};
pub use receive::Expected;

/// Why git could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The repository is not there, or may not be read.
    #[error("read the repository {repository}: {reason}")]
    Unreachable {
        /// The repository, without credentials.
        repository: String,
        /// What git said.
        reason: String,
    },
    /// The repository has no commit yet.
    #[error("start from the repository {repository}: it has no commits; make a first one")]
    Empty {
        /// The repository, without credentials.
        repository: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("find {base:?} in {repository}: it is no branch, tag or commit there; its branches are {branches}")]
    UnknownBase {
        /// What was asked for.
        base: String,
        /// The repository, without credentials.
        repository: String,
        /// A few branches that there are.
        branches: String,
    },
    /// A git command failed.
    #[error("{action}: {reason}")]
    Command {
        /// What was tried, such as `check out the base commit`.
        action: &'static str,
        /// What git said.
        reason: String,
    },
    /// A git command took too long.
    #[error("{action} within {seconds} s")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// What came out of the sandbox is not what was asked for; nothing of it was kept.
    #[error("accept the commit of the sandbox: {reason}")]
    Refused {
        /// What was wrong with it.
        reason: String,
    },
    /// What would come out of the sandbox is too large.
    #[error(
        "take {what} out of the sandbox: it is larger than {limit_bytes} bytes; commit less, or ignore build output"
    )]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit.
        limit_bytes: usize,
    },
    /// The sandbox is gone.
    #[error(transparent)]
    Sandbox(#[from] hob_sandbox::SandboxError),
}

/// A repository's name for people: without the credentials that a URL may carry.
pub fn display_name(repository: &str) -> String {
    let Some((scheme, rest)) = repository.split_once("://") else { return repository.to_owned() };
    let host_start = rest.split('/').next().and_then(|authority| authority.rfind('@')).map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host_start..])
}

/// The host of a repository's URL, with its port where an HTTP URL names one; none for a path of this machine.
pub fn forge(repository: &str) -> Option<String> {
    let (authority, http) = match repository.split_once("://") {
        Some(("file", _)) => return None,
        Some((scheme, rest)) => (rest.split('/').next()?, scheme.starts_with("http")),
        // `user@host:path`, as git takes it (git-clone(1), "GIT URLS").
        None => (repository.split_once(':').map(|(host, _)| host).filter(|host| !host.contains('/'))?, false),
    };
    let place = authority.rsplit('@').next()?;
    let host = match place.rsplit_once(':') {
        Some((host, _)) if !http && !host.is_empty() && !place.ends_with(']') => host,
        _ => place,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{display_name, forge};

    #[track_caller]
    fn check_forge(repository: &str, expect: Option<&str>) {
        assert_eq!(forge(repository).as_deref(), expect, "{repository}");
    }

    #[test]
    fn the_forge_is_the_host_of_the_url() {
        check_forge("https://me:secret@Forge.example/a/b.git", Some("forge.example"));
        check_forge("https://forge.example:8443/a/b.git", Some("forge.example:8443"));
        check_forge("ssh://git@forge.example:2222/a/b.git", Some("forge.example"));
        check_forge("git@forge.example:a/b.git", Some("forge.example"));
        check_forge("https://[::1]/a.git", Some("[::1]"));
        check_forge("/srv/a:b", None);
        check_forge("file:///srv/a", None);
        check_forge("https:///a", None);
    }

    #[test]
    fn credentials_in_a_url_are_never_shown() {
        assert_eq!(display_name("https://me:secret@forge.example/a/b.git"), "https://forge.example/a/b.git");
        assert_eq!(display_name("https://forge.example/a@b.git"), "https://forge.example/a@b.git");
        assert_eq!(display_name("git@forge.example:a/b.git"), "git@forge.example:a/b.git");
        assert_eq!(display_name("/srv/a"), "/srv/a");
    }
}
