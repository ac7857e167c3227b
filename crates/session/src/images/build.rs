//! The making of one image: a sandbox, the commands of each step in it, a frozen layer after each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hob_sandbox::{Command, LayerId, ProcessEvent, Sandbox, SandboxId, Snapshot, Spec, Token};
use tokio_util::sync::CancellationToken;

use super::image::{CheckOutcome, Image, ImageState, Stage, StageName};
use super::lease::Building;
use super::log::BuildLog;
use super::recipe::{Ground, Line, Recipe};
use super::{RUNTIME, Wanted, base};
use crate::checks::{Check, clip};
use crate::config::Wishes;
use crate::described::describe;
use crate::environment::{self, Fingerprints};
use crate::event::EventKind;
use crate::git::carry::{self, Held};
use crate::git::forge;
use crate::id::SessionId;
use crate::owned::{House, millis};
use crate::services::{Crew, Hearer, Services};
use crate::tail::Tail;
use crate::variables::variables;
use crate::workspace::ROOT;

/// Makes an image in a task of its own, and tells those who wait.
pub(super) fn begin(house: &Arc<House>, wanted: Wanted, building: Arc<Building>) {
    let house = Arc::clone(house);
    house.tracker.clone().spawn(async move {
        let closing = house.closing.clone();
        let made = closing.run_until_cancelled(run(&house, wanted, &building)).await;
        building.end(made.unwrap_or_else(|| Err("the server is shutting down".to_owned())));
        house.images.leases.tidy();
        house.pool.look_again();
    });
}

async fn run(house: &Arc<House>, wanted: Wanted, building: &Building) -> Result<Arc<Image>, String> {
    let folder = house.images.catalogue.folder_of(&building.image_id);
    let log =
        BuildLog::create(&folder).await.map_err(|error| format!("failed to write {}: {error}", folder.display()))?;
    let log = Arc::new(log);
    building.log_to(Arc::clone(&log));
    let mut build = Build::new(house, wanted, building, log)?;
    build.keep().await?;
    building.begin();
    let _turn = house.images.turns.acquire().await.map_err(|error| error.to_string())?;
    let limit = house.config.images.build_limit;
    let made = match tokio::time::timeout(limit, build.make()).await {
        Ok(made) => made,
        Err(_) => Err(Broken::Here(format!("it was not done within {} minutes", limit.as_secs() / 60))),
    };
    build.finish(made).await
}

/// Why a step could not be done.
enum Broken {
    /// What it was to be made on is gone or torn.
    Ground(String),
    /// Something else; words for a person.
    Here(String),
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

struct Build<'a> {
    house: &'a Arc<House>,
    wanted: Wanted,
    image: Image,
    sandbox_id: SandboxId,
    door: SessionId,
    /// The gateway's socket, once it is open.
    socket: Option<PathBuf>,
    building: &'a Building,
    log: Arc<BuildLog>,
}

impl<'a> Build<'a> {
    fn new(house: &'a Arc<House>, wanted: Wanted, building: &'a Building, log: Arc<BuildLog>) -> Result<Self, String> {
        let image_id = building.image_id.clone();
        let image = Image {
            repository: wanted.repository.clone(),
            asked: wanted.asked.clone(),
            commit: wanted.base.commit.clone(),
            state: ImageState::Building,
            reason: None,
            notes: Vec::new(),
            fingerprints: Fingerprints::default(),
            base_digest: String::new(),
            base: house.config.base.clone(),
            env: BTreeMap::new(),
            held: Held::default(),
            layers: Vec::new(),
            stages: Vec::new(),
            bytes: 0,
            begun_ms: house.deps.clock.now_ms(),
            ended_ms: None,
            used_ms: 0,
            refreshes: 0,
            trial: wanted.how.trial,
            checks: Vec::new(),
            image_id: image_id.clone(),
        };
        let sandbox_id = SandboxId::new(format!("build-{image_id}"))?;
        Ok(Self { house, wanted, image, sandbox_id, door: SessionId::new(image_id)?, socket: None, building, log })
    }

    /// Makes the image on the best that is there; where that turns out to be gone, on its base.
    async fn make(&mut self) -> Result<(), Broken> {
        let commit = self.wanted.base.commit.clone();
        self.log.say(&format!("commit {commit}")).await;
        let recipe = self.base().await?;
        let images = if self.wanted.how.fresh { Vec::new() } else { self.house.images.catalogue.all() };
        let made = self.make_on_best(&recipe, &images).await;
        if made.is_ok() && self.wanted.how.check {
            self.check().await?;
        }
        made
    }

    async fn make_on_best(&mut self, recipe: &Recipe, images: &[Arc<Image>]) -> Result<(), Broken> {
        match self.make_on(recipe, recipe.ground(images, &self.wanted.repository)).await {
            Err(Broken::Ground(reason)) => {
                self.log.say(&format!("everything is made anew: {reason}")).await;
                self.remove_sandbox().await;
                self.image.layers.clear();
                self.image.stages.truncate(1);
                self.make_on(recipe, Ground::Base).await
            }
            made => made,
        }
    }

    async fn base(&mut self) -> Result<Recipe, Broken> {
        if self.wanted.environment.base != environment::Base::Host {
            self.building.reach(StageName::Base);
        }
        let begun = Instant::now();
        let ready = base::prepare(self.house, &self.wanted.environment.base, &self.log).await?;
        for note in &ready.notes {
            self.log.say(note).await;
        }
        let recipe = Recipe::new(&self.wanted.environment, &ready.digest, RUNTIME);
        self.image.fingerprints = recipe.fingerprints.clone();
        (self.image.base, self.image.base_digest, self.image.env) = (ready.base, ready.digest, ready.env);
        self.image.notes = ready.notes;
        self.done(StageName::Base, begun, false);
        Ok(recipe)
    }

    async fn make_on(&mut self, recipe: &Recipe, ground: Ground<'_>) -> Result<(), Broken> {
        if let Ground::Older(older) = ground {
            self.log.say(&format!("on top of image {}", older.image_id)).await;
            self.inherit(older, &older.layers.clone(), StageName::Clone);
            (self.image.held, self.image.refreshes) = (older.held.clone(), older.refreshes + 1);
            return self.warm(recipe, true).await;
        }
        if let Ground::After(other, stage) = ground
            && let Some(layers) = other.layers_after(stage)
        {
            self.log.say(&format!("{} as in image {}", stage.as_str(), other.image_id)).await;
            self.inherit(other, layers, stage);
        }
        for stage in [StageName::Packages, StageName::Setup] {
            if !self.image.has(stage) {
                self.commands(stage, recipe.lines(stage)).await?;
            }
        }
        self.clone_repository().await?;
        self.warm(recipe, false).await
    }

    /// Takes the layers of another image up to a step.
    fn inherit(&mut self, other: &Image, layers: &[LayerId], upto: StageName) {
        self.image.layers = layers.to_vec();
        let steps = other.stages.iter().filter(|stage| stage.name > StageName::Base && stage.name <= upto);
        self.image.stages.extend(steps.map(|stage| Stage { elapsed_ms: 0, reused: true, ..stage.clone() }));
    }

    async fn commands(&mut self, stage: StageName, lines: &[Line]) -> Result<(), Broken> {
        let begun = Instant::now();
        if !lines.is_empty() {
            self.building.reach(stage);
            let sandbox = self.sandbox().await?;
            self.run_all(&sandbox, lines).await?;
            self.freeze().await?;
        }
        self.done(stage, begun, false);
        Ok(())
    }

    async fn clone_repository(&mut self) -> Result<(), Broken> {
        self.building.reach(StageName::Clone);
        let begun = Instant::now();
        let sandbox = self.sandbox().await?;
        let limit = self.house.config.timeouts.fetch;
        let held = carry::clone(&self.wanted.mirror, &self.wanted.base, &sandbox, limit).await;
        self.image.held = held.map_err(|error| format!("failed to {error}"))?;
        self.freeze().await?;
        self.done(StageName::Clone, begun, false);
        Ok(())
    }

    /// Runs the commands of `warm`, with the services beside them, and leaves the workspace as others begin from it.
    async fn warm(&mut self, recipe: &Recipe, older: bool) -> Result<(), Broken> {
        let lines = recipe.lines(StageName::Warm);
        let begun = Instant::now();
        if lines.is_empty() && !older {
            self.done(StageName::Warm, begun, false);
            return Ok(());
        }
        self.building.reach(StageName::Warm);
        let sandbox = self.sandbox().await?;
        let limit = self.house.config.timeouts.fetch;
        let mut held = self.image.held.clone();
        if older {
            let Wanted { mirror, base, .. } = &self.wanted;
            let synced = carry::sync(mirror, &held, base, "", &sandbox, limit).await;
            synced.map_err(|error| Broken::Ground(format!("failed to {error}")))?;
            held.commit.clone_from(&base.commit);
        }
        if !lines.is_empty() {
            let alive = CancellationToken::new();
            let services_end = alive.clone().drop_guard();
            self.serve(&sandbox, &alive).await?;
            self.run_all(&sandbox, lines).await?;
            drop(services_end);
            sandbox.kill_all().await.map_err(|error| format!("failed to {error}"))?;
            carry::settle(&held, &sandbox, limit).await.map_err(|error| format!("failed to {error}"))?;
        }
        self.freeze().await?;
        self.image.held = held;
        self.done(StageName::Warm, begun, false);
        Ok(())
    }

    /// Runs the repository's checks in the finished image, and keeps what they came to. What they leave behind is not
    /// part of the image.
    async fn check(&mut self) -> Result<(), Broken> {
        let described = describe(&self.wanted.mirror, &self.wanted.base.commit).await;
        let detected = described.map_err(|error| format!("failed to {error}"))?.checks;
        let checks = self.wanted.environment.checks.clone().unwrap_or(detected);
        let sandbox = self.sandbox().await?;
        let alive = CancellationToken::new();
        let _services_end = alive.clone().drop_guard();
        self.serve(&sandbox, &alive).await?;
        for check in checks {
            let outcome = self.check_one(&sandbox, check).await?;
            self.log.say(&format!("check {} ended with exit code {}", outcome.name, outcome.exit_code)).await;
            self.image.checks.push(outcome);
        }
        Ok(())
    }

    async fn check_one(&self, sandbox: &Sandbox, check: Check) -> Result<CheckOutcome, String> {
        let begun = Instant::now();
        let folder = if check.directory.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{}", check.directory) };
        let mut exit_code = 0;
        for line in check.prepare.iter().chain([&check.command]) {
            if exit_code != 0 {
                break;
            }
            self.log.say(&format!("check {}: $ {line}", check.name)).await;
            let command = Command::shell(line).cwd(&folder).timeout(check.timeout);
            exit_code = carry_out(sandbox, command, &self.log, &mut Tail::default()).await?;
        }
        Ok(CheckOutcome { name: check.name, exit_code, elapsed_ms: millis(begun.elapsed()) })
    }

    /// Starts the services, as far as there are any.
    async fn serve(&self, sandbox: &Sandbox, alive: &CancellationToken) -> Result<(), String> {
        let environment = &self.wanted.environment;
        if environment.services.is_empty() && environment.start.is_empty() {
            return Ok(());
        }
        let services = Arc::new(Services::new());
        services.announce(environment);
        let hearer = Arc::clone(&self.log) as Arc<dyn Hearer>;
        let tracker = self.house.tracker.clone();
        let crew = Crew { services, hearer, sandbox: sandbox.clone(), tracker, alive: alive.clone() };
        crew.start(environment.clone()).await.map(drop)
    }

    async fn run_all(&self, sandbox: &Sandbox, lines: &[Line]) -> Result<(), String> {
        for line in lines {
            self.log.say(&format!("$ {}", line.shown)).await;
            run_line(sandbox, line.command.clone(), &self.log)
                .await
                .map_err(|reason| format!("`{}` {reason}", clip(&line.shown, 200)))?;
        }
        Ok(())
    }

    /// The sandbox, running on what is frozen so far.
    async fn sandbox(&mut self) -> Result<Sandbox, Broken> {
        let gateway = Some(self.gateway().await?);
        let config = &self.house.config;
        let ids = &self.house.deps.ids;
        let spec = Spec {
            id: self.sandbox_id.clone(),
            epoch: 1,
            token: Token(format!("{}{}", ids.next(), ids.next())),
            base: self.image.base.clone(),
            layers: self.image.layers.clone(),
            workspace: Some(self.house.images.nothing.clone()),
            mounts: config.mounts.clone(),
            env: variables(&self.wanted.environment, &self.image.env),
            limits: self.wanted.environment.wants.within(config.limits.sandbox),
            gateway,
        };
        let limit = config.timeouts.sandbox_start;
        let reason = match tokio::time::timeout(limit, self.house.deps.provider.create(spec)).await {
            Ok(Ok(sandbox)) => return Ok(sandbox),
            Ok(Err(error)) => format!("failed to {error}"),
            Err(_) => format!("failed to start its sandbox within {} s", limit.as_secs()),
        };
        let is_reused = self.image.stages.last().is_some_and(|stage| stage.reused) && !self.image.layers.is_empty();
        Err(if is_reused { Broken::Ground(reason) } else { Broken::Here(reason) })
    }

    /// The gateway's socket, with what the repository asks to reach.
    async fn gateway(&mut self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let doors = &self.house.deps.doors;
        let access = doors.open(&self.door, 1).await;
        let access = access.map_err(|reason| format!("failed to open the gateway: {reason}"))?;
        let wishes =
            Wishes { forge: forge(&self.wanted.repository), repository: self.wanted.environment.egress.clone() };
        for refused in doors.allow(&self.door, &wishes).await {
            self.log.say(&refused).await;
        }
        Ok(self.socket.insert(access.socket).clone())
    }

    /// Freezes what the sandbox has written, and ends it.
    async fn freeze(&mut self) -> Result<(), String> {
        let frozen = self.house.deps.provider.snapshot(&self.sandbox_id).await;
        let Snapshot { layers, entries, bytes, .. } = frozen.map_err(|error| format!("failed to {error}"))?;
        self.image.layers = layers;
        self.image.bytes += bytes;
        self.log.say(&format!("frozen: {entries} files and folders, {} KiB", bytes.div_ceil(1024))).await;
        Ok(())
    }

    fn done(&mut self, name: StageName, begun: Instant, reused: bool) {
        let elapsed_ms = millis(begun.elapsed());
        self.image.stages.retain(|stage| stage.name != name);
        self.image.stages.push(Stage { name, layers: self.image.layers.len(), elapsed_ms, reused });
    }

    /// Writes the record, pins what is whole, removes the sandbox.
    async fn finish(mut self, made: Result<(), Broken>) -> Result<Arc<Image>, String> {
        match made {
            Ok(()) => {
                self.image.state = ImageState::Ready;
                self.log.say("done").await;
            }
            Err(Broken::Here(reason) | Broken::Ground(reason)) => {
                self.log.say(&format!("failed: {reason}")).await;
                tracing::warn!(image.id = self.image.image_id, "an image was not built: {reason}");
                (self.image.state, self.image.reason) = (ImageState::Failed, Some(reason));
            }
        }
        self.image.ended_ms = Some(self.house.deps.clock.now_ms());
        let pinned = self.pin().await;
        let kept = match pinned {
            Ok(()) => self.keep().await,
            Err(reason) => Err(reason),
        };
        self.remove_sandbox().await;
        self.house.deps.doors.close(&self.door).await;
        kept.map(|()| Arc::new(self.image))
    }

    async fn pin(&self) -> Result<(), String> {
        if self.image.layers.is_empty() {
            return Ok(());
        }
        let name = SandboxId::new(self.image.pin())?;
        let pinned = self.house.deps.provider.pin(&name, &self.image.layers).await;
        pinned.map_err(|error| format!("failed to keep the image: failed to {error}"))
    }

    async fn keep(&self) -> Result<(), String> {
        let kept = self.house.images.catalogue.put(&self.image).await;
        kept.map_err(|error| format!("failed to keep the record of image {}: {error}", self.image.image_id))
    }

    async fn remove_sandbox(&self) {
        if let Err(error) = self.house.deps.provider.destroy(&self.sandbox_id).await {
            tracing::error!(sandbox.id = %self.sandbox_id, "a sandbox is left behind: failed to {error}");
        }
    }
}

/// Runs a command to its end, and keeps what it writes; fails with how it ended and its last words.
async fn run_line(sandbox: &Sandbox, command: Command, log: &BuildLog) -> Result<(), String> {
    let mut tail = Tail::default();
    match carry_out(sandbox, command, log, &mut tail).await? {
        0 => Ok(()),
        code => {
            let said = tail.text().unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
            Err(format!("ended with exit code {code}: {}", clip(&last, 300)))
        }
    }
}

/// Runs a command to its end, keeps what it writes, and gives its exit code.
async fn carry_out(sandbox: &Sandbox, command: Command, log: &BuildLog, tail: &mut Tail) -> Result<i32, String> {
    let mut process = sandbox.exec(command).await.map_err(|error| format!("was not run: failed to {error}"))?;
    while let Some(event) = process.next().await {
        match event {
            ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => {
                tail.hear(&bytes);
                log.write(&bytes).await;
            }
            ProcessEvent::Exited(exit) => return Ok(exit.code),
            ProcessEvent::Lost => break,
        }
    }
    Err("was not done when the sandbox was lost".to_owned())
}

#[async_trait]
impl Hearer for BuildLog {
    async fn hear(&self, event: EventKind) -> Result<(), String> {
        match event {
            EventKind::Service { name, status, detail, log, .. } => {
                let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                self.say(&format!("service {name} {}{detail}", status.as_str())).await;
                if let Some(log) = log {
                    self.write(format!("{log}\n").as_bytes()).await;
                }
            }
            EventKind::Notice { text } => self.say(&text).await,
            _ => {}
        }
        Ok(())
    }
}
