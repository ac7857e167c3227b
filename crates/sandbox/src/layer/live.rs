//! Freezes what a sandbox has written so far, and lets it go on.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::copy::{Copy, Moment, Prior, changed_since};
use super::manifest::Manifest;
use super::{LayerId, Layers};
use crate::freezer::Freezer;
use crate::provider::SandboxError;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Live {
    /// Of the frozen copy.
    pub(crate) manifest: Manifest,
    /// What was changed before this is in the copy for certain.
    pub(crate) begun: Moment,
    /// For how long the sandbox stood still.
    pub(crate) paused: Duration,
}

impl Layers {
    /// Freezes in `fresh`, whose tree is empty, a copy of a layer that a sandbox writes to. The copy before, and when it
    /// was begun, save the copying of what has not changed since.
    pub(crate) fn copy(
        &self,
        open: &LayerId,
        fresh: &LayerId,
        before: Option<(&LayerId, Moment)>,
        freezer: &Freezer,
    ) -> Result<Live, SandboxError> {
        let (source, target) = (self.tree_of(open), self.tree_of(fresh));
        // What is torn is not handed on.
        let before = before.filter(|(layer, _)| self.verify(layer).is_ok());
        let prior = before.map(|(layer, begun)| Prior { tree: self.tree_of(layer), begun });
        let copied = copy(&source, &target, prior, freezer);
        let (begun, paused) = copied.map_err(SandboxError::io("copy", &source))?;
        Ok(Live { manifest: self.freeze(fresh)?, begun, paused })
    }

    /// Whether a sandbox may have written to a layer since a moment.
    pub(crate) fn changed_since(&self, open: &LayerId, since: Moment) -> Result<bool, SandboxError> {
        let tree = self.tree_of(open);
        changed_since(&tree, since).map_err(SandboxError::io("look through", &tree))
    }
}

fn copy(source: &Path, target: &Path, prior: Option<Prior>, freezer: &Freezer) -> io::Result<(Moment, Duration)> {
    let begun = Moment::of(target)?;
    rustix::fs::syncfs(File::open(target)?)?;
    let mut copy = Copy::new(source, target, prior, begun)?;
    copy.ahead()?;
    let pause = Instant::now();
    let frozen = freezer.freeze()?;
    copy.rest()?;
    drop(frozen);
    Ok((begun, pause.elapsed()))
}
