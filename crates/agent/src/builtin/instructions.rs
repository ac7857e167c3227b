//! The repository's instructions: `AGENTS.md` at its root, and nested ones when files below them are touched.
//!
//! The first request to the model never waits for a sandbox that is still getting ready. Reading starts with the
//! prompt; what is there within [`GRACE`] goes with the first request, and otherwise the instructions follow as a
//! note with the first results of tools, which had to wait for the same sandbox.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conversation::{Item, NoteKind};
use crate::workspace::{Workspace, WorkspaceError};

/// How long the first request waits: what a warm sandbox needs to answer, and nobody notices.
const GRACE: Duration = Duration::from_millis(2);
/// How long later requests wait, once a tool has shown that the sandbox is there.
const GRACE_LATER: Duration = Duration::from_millis(500);
const NAME: &str = "AGENTS.md";
const FILE_BYTES_MAX: usize = 32 * 1024;
const ALL_BYTES_MAX: usize = 96 * 1024;
const DEPTH_MAX: usize = 12;
const FOLDERS_MAX: usize = 256;

/// What is known of the repository's instructions.
pub(super) struct Instructions {
    workspace: Arc<dyn Workspace>,
    reading: Option<JoinHandle<Found>>,
    known_folders: HashSet<String>,
    bytes: usize,
}

type Found = Result<Option<Item>, WorkspaceError>;

impl Instructions {
    pub(super) fn new(workspace: Arc<dyn Workspace>) -> Self {
        Self { workspace, reading: None, known_folders: HashSet::new(), bytes: 0 }
    }

    /// Starts to read the root's instructions, unless that was done.
    pub(super) fn start(&mut self, tasks: &TaskTracker, closed: &CancellationToken) {
        if !self.known_folders.insert(String::new()) {
            return;
        }
        let workspace = Arc::clone(&self.workspace);
        let closed = closed.clone();
        self.reading = Some(tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => Ok(None),
                found = read(workspace.as_ref(), "") => found,
            }
        }));
    }

    /// The root's instructions, once, if they can be had without a noticeable wait.
    pub(super) async fn ready(&mut self, first_request: bool) -> Option<Item> {
        let reading = self.reading.as_mut()?;
        let grace = if first_request { GRACE } else { GRACE_LATER };
        let found = tokio::time::timeout(grace, reading).await.ok()?;
        self.reading = None;
        match found {
            Ok(Ok(item)) => item.filter(|item| self.fits(item)),
            // A sandbox that failed shows in the tools; the next turn tries again.
            Ok(Err(_)) | Err(_) => {
                self.known_folders.remove("");
                None
            }
        }
    }

    /// The instructions of the folders between the root and the files touched that were not read yet.
    pub(super) async fn nested(&mut self, paths: &[String]) -> Vec<Item> {
        let root = self.workspace.root().trim_end_matches('/').to_owned();
        let mut items = Vec::new();
        for folder in paths.iter().flat_map(|path| folders(&root, path)) {
            if self.known_folders.len() >= FOLDERS_MAX || !self.known_folders.insert(folder.clone()) {
                continue;
            }
            if let Ok(Some(item)) = read(self.workspace.as_ref(), &folder).await
                && self.fits(&item)
            {
                items.push(item);
            }
        }
        items
    }

    fn fits(&mut self, item: &Item) -> bool {
        let Item::Note { text, .. } = item else { return false };
        let fits = self.bytes + text.len() <= ALL_BYTES_MAX;
        if fits {
            self.bytes += text.len();
        }
        fits
    }
}

async fn read(workspace: &dyn Workspace, folder: &str) -> Found {
    let path = if folder.is_empty() { NAME.to_owned() } else { format!("{folder}/{NAME}") };
    let bytes = match workspace.read(&path, FILE_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(WorkspaceError::NotFound { .. } | WorkspaceError::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&bytes);
    if text.trim().is_empty() {
        return Ok(None);
    }
    let scope = if folder.is_empty() { "the whole repository" } else { folder };
    let cut = if bytes.len() >= FILE_BYTES_MAX { "\n[the rest is left out]" } else { "" };
    let text = format!("<instructions file=\"{path}\" for=\"{scope}\">\n{}{cut}\n</instructions>", text.trim());
    Ok(Some(Item::Note { kind: NoteKind::Instructions, text }))
}

/// The folders below the root down to the one that holds `path`, outermost first. None for a path outside.
fn folders(root: &str, path: &str) -> Vec<String> {
    let inside = match path.strip_prefix('/') {
        Some(_) => path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')),
        None => Some(path),
    };
    let parts: Vec<&str> = inside.unwrap_or("").split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Vec::new();
    }
    (1..parts.len()).take(DEPTH_MAX).map(|depth| parts[..depth].join("/")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expect: &[&str]) {
        assert_eq!(folders("/workspace", path), expect);
    }

    #[test]
    fn folders_lead_from_the_root_to_the_file() {
        check("calc.py", &[]);
        check("src/deep/calc.py", &["src", "src/deep"]);
        check("./src/calc.py", &["src"]);
        check("/workspace/src/calc.py", &["src"]);
        check("/workspace-other/src/calc.py", &[]);
        check("/etc/passwd", &[]);
        check("src/../../etc/passwd", &[]);
    }
}
