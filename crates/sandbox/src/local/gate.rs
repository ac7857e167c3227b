//! The gate of a sandbox's workspace: the writer that passes while it is closed, and its opening.
//!
//! The helper knows how each gate stands, for it outlives the server, and a sandbox ends with it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use hob_guest::launch::Cgroup;
use hob_guest::protocol::Identity;

use super::Inner;
use super::plan::{Plan, Top};
use super::record::{self, Record};
use crate::link::Link;
use crate::provider::SandboxError;
use crate::sandbox::{Parts, Sandbox};
use crate::spec::{Gate, SandboxId, Token};

impl Inner {
    pub(super) fn writer_folder_of(&self, id: &SandboxId) -> PathBuf {
        self.folder_of(id).join("writer")
    }

    /// Starts a writer in place of the one that there may be.
    pub(super) async fn start_writer(&self, id: &SandboxId, token: Token) -> Result<Sandbox, SandboxError> {
        let helper = self.helper().await?;
        let lost = |reason: String| SandboxError::Lost { id: id.clone(), reason };
        let gate = helper.running().await.map_err(lost)?.remove(id.as_str());
        if gate == Some(Gate::Open) {
            let reason = "the gate is open, everybody writes".to_owned();
            return Err(SandboxError::Refused { what: format!("a writer of sandbox {id}"), reason });
        }
        let sandbox = self.open_sandboxes().get(id).cloned();
        let (Some(sandbox), Some(record)) = (sandbox.filter(|_| gate.is_some()), record::read(&self.folder_of(id))?)
        else {
            return Err(lost("it does not run".to_owned()));
        };
        self.close_writer(id, "another writer takes its place");
        let base = self.base_of(&record.spec).await?;
        // The sandbox's own, whose limits stand.
        let groups = record.groups.iter().map(|folder| Cgroup { folder: folder.clone(), limits: Vec::new() }).collect();
        let plan = Plan { inner: self, record: &record, base: base.as_ref(), groups, top: Top::Workspace }.prepare()?;
        let writer = self.link_writer(&sandbox, &record, token)?;
        if let Err(reason) = helper.start_writer(plan).await {
            self.close_writer(id, &reason);
            return Err(SandboxError::Start { id: id.clone(), reason: format!("start its writer: {reason}") });
        }
        self.ready(writer).await
    }

    /// Listens for the writer's guest and makes the handle.
    fn link_writer(&self, sandbox: &Sandbox, record: &Record, token: Token) -> Result<Sandbox, SandboxError> {
        let id = sandbox.id();
        let run = self.writer_folder_of(id).join("run");
        let identity = Identity { sandbox: id.to_string(), epoch: record.spec.epoch, token: token.0 };
        record::write_identity(&run, &identity)?;
        let link = Link::listen(id, identity, &run, self.stop.child_token(), &self.tasks);
        let link = link.map_err(SandboxError::io("listen in", &run))?;
        let parts = sandbox.parts();
        let writer = Sandbox::new(Parts {
            link,
            groups: parts.groups.clone(),
            written: Arc::clone(&parts.written),
            lost: None,
            limits: parts.limits,
            gate: tokio::sync::watch::Sender::new(Gate::Open),
            events: parts.events.clone(),
        });
        self.writers().insert(id.clone(), writer.clone());
        Ok(writer)
    }

    /// Ends the writer, then lets the sandbox write.
    pub(super) async fn open_gate(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.close_writer(id, "the gate was opened");
        let helper = self.helper().await?;
        helper.open_gate(id.as_str()).await.map_err(|reason| SandboxError::Lost { id: id.clone(), reason })?;
        if let Some(sandbox) = self.open_sandboxes().get(id) {
            sandbox.parts().gate.send_replace(Gate::Open);
        }
        let folder = self.writer_folder_of(id);
        match std::fs::remove_dir_all(&folder) {
            // Nothing in it will be used again, and it goes with the sandbox.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(sandbox.id = %id, "failed to remove {}: {error}", folder.display());
            }
            Ok(()) | Err(_) => {}
        }
        Ok(())
    }

    /// Tells whoever holds a writer's handle that it is no more. The helper ends its processes.
    pub(super) fn close_writer(&self, id: &SandboxId, reason: &str) {
        let writer = self.writers().remove(id);
        if let Some(writer) = writer {
            writer.link().close(reason);
        }
    }
}
