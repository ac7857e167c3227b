//! The task that keeps one service up: starts it, waits until it is ready, and starts it again when it ends.

use std::time::{Duration, Instant};

use hob_sandbox::{Command, Process, ProcessEvent, SandboxError};

use super::Crew;
use super::policy::{End, Next, Patience};
use crate::environment::Service;
use crate::event::{EventKind, ServiceStatus};
use crate::owned::millis;
use crate::tail::Tail;
use crate::workspace::ROOT;

/// How long one run of a `ready` command may take.
const READY_COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// A service that nothing says about how it is ready is taken for ready when it still runs after this.
const STILL_RUNS: Duration = Duration::from_secs(1);

/// The first wait between two looks, and the longest one; each is twice as long as the one before.
const LOOK_AFTER: Duration = Duration::from_millis(5);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(500);

pub(super) struct Keeper {
    crew: Crew,
    service: Service,
}

/// Why a service is not kept any more.
enum Gone {
    /// Its sandbox's life has ended.
    Sandbox,
    /// It has failed, and why; what it wrote last.
    Failed(String, Option<String>),
}

impl Keeper {
    pub(super) fn new(crew: Crew, service: Service) -> Self {
        Self { crew, service }
    }

    /// Keeps the service until it has failed, or its sandbox's life ends.
    pub(super) async fn keep(self) {
        let alive = self.crew.alive.clone();
        let Some(Gone::Failed(why, log)) = alive.run_until_cancelled(self.keep_up()).await else { return };
        self.tell(ServiceStatus::Failed, None, Some(why), log).await;
    }

    async fn keep_up(&self) -> Gone {
        if let Err(needed) = self.wait_for_others().await {
            return Gone::Failed(format!("{needed}, which it needs, has failed"), None);
        }
        let mut patience = Patience::default();
        loop {
            let mut tail = Tail::default();
            let end = match self.live(&mut tail).await {
                Ok(end) => end,
                Err(gone) => return gone,
            };
            match patience.after(end) {
                Next::GiveUp => return Gone::Failed(end.to_string(), tail.text()),
                Next::Restart(wait) => {
                    let again = format!("{end}; it is started again in {} ms", wait.as_millis());
                    self.tell(ServiceStatus::Ended, None, Some(again), tail.text()).await;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits until the services that this one needs are ready, or says which one has failed.
    async fn wait_for_others(&self) -> Result<(), String> {
        for name in &self.service.after {
            let mut board = self.crew.services.board.subscribe();
            let settled = |board: &super::Board| board.status(name).is_none_or(ServiceStatus::is_settled);
            let failed = match board.wait_for(settled).await {
                Ok(board) => board.status(name) != Some(ServiceStatus::Ready),
                // The session is gone.
                Err(_) => true,
            };
            if failed {
                return Err(name.clone());
            }
        }
        Ok(())
    }

    /// One life of the service, from its start to its end.
    async fn live(&self, tail: &mut Tail) -> Result<End, Gone> {
        self.tell(ServiceStatus::Starting, None, None, None).await;
        let begun = Instant::now();
        let started = self.crew.sandbox.exec(self.command(&self.service.command)).await;
        let mut process = started.map_err(|error| match error {
            SandboxError::Lost { .. } => Gone::Sandbox,
            error => Gone::Failed(format!("Hob failed to {error}"), None),
        })?;
        let end = self.watch(&mut process, tail, begun).await;
        // What it left behind would hold its port.
        if let Err(error) = process.kill().await {
            tracing::debug!(sandbox.id = %self.crew.sandbox.id(), service = self.service.name, "nothing was left: failed to {error}");
        }
        end
    }

    async fn watch(&self, process: &mut Process, tail: &mut Tail, begun: Instant) -> Result<End, Gone> {
        let ended = exit_code(process, tail);
        tokio::pin!(ended);
        tokio::select! {
            biased;
            code = &mut ended => return Ok(End::Exited { code: code.ok_or(Gone::Sandbox)?, ready_for: None }),
            () = self.ready() => {}
            () = tokio::time::sleep(self.service.ready_within) => return Ok(End::Late(self.service.ready_within)),
        }
        let ready = Instant::now();
        self.tell(ServiceStatus::Ready, Some(millis(begun.elapsed())), None, None).await;
        let code = ended.await.ok_or(Gone::Sandbox)?;
        Ok(End::Exited { code, ready_for: Some(ready.elapsed()) })
    }

    /// Returns when the service is ready, as the environment says it.
    async fn ready(&self) {
        let mut wait = LOOK_AFTER;
        while !self.is_ready().await {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOOK_AFTER_MAX);
        }
    }

    async fn is_ready(&self) -> bool {
        match (&self.service.ready, self.service.port) {
            (Some(line), _) => {
                let command = self.command(line).timeout(READY_COMMAND_LIMIT);
                let Ok(mut process) = self.crew.sandbox.exec(command).await else { return false };
                let exit = process.wait_output(1_024).await.exit;
                exit.is_some_and(|exit| exit.code == 0 && !exit.timed_out)
            }
            (None, Some(port)) => self.crew.sandbox.dial(port).await.is_ok(),
            (None, None) => {
                tokio::time::sleep(STILL_RUNS).await;
                true
            }
        }
    }

    fn command(&self, line: &str) -> Command {
        let directory = &self.service.directory;
        let folder = if directory.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{directory}") };
        let command = Command::shell(line).cwd(folder);
        Command { env: self.service.env.clone(), ..command }
    }

    /// Records how the service stands, and puts it on the board.
    async fn tell(&self, status: ServiceStatus, elapsed_ms: Option<u64>, detail: Option<String>, log: Option<String>) {
        let name = self.service.name.clone();
        let event = EventKind::Service { name, status, elapsed_ms, detail: detail.clone(), log: log.clone() };
        if let Err(reason) = self.crew.hearer.hear(event).await {
            tracing::warn!(sandbox.id = %self.crew.sandbox.id(), service = self.service.name, "not told: {reason}");
        }
        self.crew.services.put(&self.service.name, status, detail, log);
    }
}

/// Reads what a process writes until it ends; `None` where its sandbox is lost.
async fn exit_code(process: &mut Process, tail: &mut Tail) -> Option<i32> {
    loop {
        match process.next().await? {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => tail.hear(&bytes),
            ProcessEvent::Exited(exit) => return Some(exit.code),
            ProcessEvent::Lost => return None,
        }
    }
}
