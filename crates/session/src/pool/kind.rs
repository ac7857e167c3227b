//! What a warm sandbox is for. A session takes one that is for the same.

use crate::agents::BUILT_IN;

/// What a warm sandbox is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// The repository as it was asked for; it may hold a user's name and is not for people.
    pub(crate) repository: String,
    /// The branch, tag or commit as it was asked for.
    pub(crate) asked: Option<String>,
    /// The agent: what it is installed as is mounted.
    pub(crate) agent: String,
    /// The model that an agent inside was started with; none for the built-in one, which is told with each call.
    pub(crate) model: Option<String>,
}

impl Kind {
    /// What a session would take.
    pub(crate) fn new(repository: &str, asked: Option<&str>, agent: &str, model: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            asked: asked.map(str::to_owned),
            agent: agent.to_owned(),
            model: (agent != BUILT_IN).then(|| model.to_owned()),
        }
    }
}
