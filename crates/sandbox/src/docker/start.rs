//! How a container comes to run, and how its guest is listened for.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hob_guest::protocol::{ENTRY_FILE, GATEWAY_SOCKET, HOST_SOCKET, IDENTITY_FILE, Identity};
use hyper::Method;
use rustix::process::Resource;
use tokio::sync::{self, broadcast};

use super::Inner;
use super::api::{Container, Image, Made};
use super::archive::{self, Owners};
use super::container::{self, Step};
use super::layers::WORKSPACE;
use super::record::{self, Record};
use super::watch::{self, OfContainer};
use crate::cgroup;
use crate::link::Link;
use crate::provider::SandboxError;
use crate::sandbox::{Parts, Sandbox};
use crate::spec::{Gate, SandboxId, Spec};
use crate::{socket, whole};

/// How long a guest may take to dial home after its start.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Files that a process may open at most, where the machine allows that.
const FILES_MAX: u64 = 1 << 20;

/// Where a container has its checkout.
const INSIDE: &str = "workspace";

impl Inner {
    /// Makes the sandbox run, whatever there is of it.
    pub(super) async fn start(self: &Arc<Self>, spec: Spec) -> Result<Sandbox, SandboxError> {
        let (id, folder) = (spec.id.clone(), self.folder_of(&spec.id));
        let identity = Identity { sandbox: id.to_string(), epoch: spec.epoch, token: spec.token.0.clone() };
        let spec = spec.without_token();
        let old = record::read(&folder)?;
        let found = match old.as_ref().and_then(|old| old.container.as_ref()) {
            Some(container) => self.container(container).await?,
            None => None,
        };
        let shape = container::shape(&container::describe(&spec, &self.parts("", &folder)));
        let running = found.as_ref().map(|found| found.state.running);
        let then = old.as_ref().map_or("", |old| old.shape.as_str());
        let record = match (container::decide(running, then, &shape), old) {
            (Step::Connect, Some(old)) => {
                let sandbox = self.link(&old, &found.unwrap_or_default(), identity)?;
                return self.ready(sandbox).await;
            }
            (Step::Resume, Some(old)) => Record { spec, lost: None, ..old },
            (Step::Remake, Some(_)) => {
                self.freeze(&id).await?;
                let old = record::read(&folder)?;
                self.make(spec, shape, old).await?
            }
            (_, old) => self.make(spec, shape, old).await?,
        };
        record::write(&folder, &record)?;
        self.run(&record, identity).await
    }

    fn parts<'a>(&'a self, image: &'a str, folder: &Path) -> container::Parts<'a> {
        let most = |resource| rustix::process::getrlimit(resource).maximum;
        container::Parts {
            instance: &self.instance,
            image,
            run: folder.join("run"),
            runtime: self.runtime.as_deref(),
            files_max: most(Resource::Nofile).unwrap_or(FILES_MAX).min(FILES_MAX),
            // More than the machine has numbers for means nothing, and Podman has cut its own limit to that.
            processes_max: most(Resource::Nproc).map(|most| most.min(process_numbers())),
        }
    }

    /// Makes a container from the sandbox's layers, or from its base, and fills its workspace.
    async fn make(&self, spec: Spec, shape: String, old: Option<Record>) -> Result<Record, SandboxError> {
        let folder = self.folder_of(&spec.id);
        let lost = old.as_ref().and_then(lost);
        let (below, last_layer) = match old {
            Some(old) => (old.below, old.last_layer),
            None => (spec.layers.clone(), 0),
        };
        let mut record = Record { container: None, image: String::new(), shape, below, last_layer, lost, spec };
        {
            let _in_use = self.layers_in_use.lock().await;
            self.still_there(&record.below).await?;
            record::write(&folder, &record)?;
        }
        let made = self.make_container(&mut record, &folder).await;
        if made.is_err() && last_layer == 0 && record.lost.is_none() {
            // It never was: nothing is to be listed.
            record::remove(&folder)?;
        }
        record.container = Some(made?);
        Ok(record)
    }

    async fn make_container(&self, record: &mut Record, folder: &Path) -> Result<String, SandboxError> {
        record.image = match record.below.first() {
            Some(layer) => self.image_of_layer(layer),
            None => self.image_of(&record.spec.base).await?,
        };
        let (spec, image) = (&record.spec, record.image.as_str());
        let known = self.image(image).await?.ok_or_else(|| no_image(image))?;
        // The daemon mounts what is there.
        let run = folder.join("run");
        fs::create_dir_all(&run).map_err(SandboxError::io("create", &run))?;
        let name = container::name(&self.instance, spec.id.as_str());
        // One that a crash has left there is complete in no way that anybody knows of.
        self.remove_container(&name).await?;
        let create = container::describe(spec, &self.parts(image, folder));
        let made: Made =
            self.engine.make(&format!("/containers/create?name={name}"), &create).await.map_err(start(&spec.id))?;
        self.fill(record, &made.id, &known).await?;
        Ok(made.id)
    }

    /// Puts the checkout into a container, unless its image has it already.
    async fn fill(&self, record: &Record, container: &str, image: &Image) -> Result<(), SandboxError> {
        let path = format!("/containers/{container}/archive?path=/");
        let there = image.label(WORKSPACE);
        let workspace = record.spec.workspace.as_ref();
        let archive = match workspace.filter(|folder| there != Some(&*folder.to_string_lossy())) {
            Some(folder) if !folder.is_dir() => {
                return Err(SandboxError::io("use", folder)(std::io::ErrorKind::NotADirectory.into()));
            }
            Some(folder) => archive::folder(folder.clone(), INSIDE, Owners::Root, &self.tasks),
            None if there.is_some() => return Ok(()),
            None => archive::empty_folder(INSIDE).map_err(SandboxError::io("archive", Path::new(INSIDE)))?,
        };
        self.engine.load(Method::PUT, &path, archive).await.map(drop).map_err(start(&record.spec.id))
    }

    /// Writes what the guest finds in its folder.
    fn prepare(&self, record: &Record, image: &Image) -> Result<(), SandboxError> {
        let run = self.folder_of(&record.spec.id).join("run");
        let put = |name: &str, bytes: &[u8], mode| {
            let path = run.join(name);
            whole::replace(&path, bytes, mode).map_err(SandboxError::io("write", &path))
        };
        let names: Vec<String> = (0..self.filters.len()).map(|number| format!("filter-{number}.bpf")).collect();
        for (name, filter) in names.iter().zip(&self.filters) {
            put(name, filter, 0o644)?;
        }
        put("guest", &fs::read(&self.program).map_err(SandboxError::io("read", &self.program))?, 0o755)?;
        let entered = container::entered(&record.spec, image.path(), names);
        let entered = serde_json::to_vec(&entered).map_err(|error| SandboxError::io("write", &run)(error.into()))?;
        put(ENTRY_FILE, &entered, self.private())
    }

    /// The mode of files that only root inside may read. Where the daemon gives root inside another number, the folder
    /// that they lie in keeps everybody else out.
    fn private(&self) -> u32 {
        let remapped = self.info.security_options.iter().flatten().any(|option| option.contains("name=userns"));
        if remapped { 0o644 } else { 0o600 }
    }

    async fn run(self: &Arc<Self>, record: &Record, identity: Identity) -> Result<Sandbox, SandboxError> {
        let id = &record.spec.id;
        let container = record.container.clone().unwrap_or_default();
        // An image that was removed under its container leaves nothing to be said of it.
        self.prepare(record, &self.image(&record.image).await?.unwrap_or_default())?;
        self.open_sandboxes().remove(id);
        self.write_identity(id, &identity)?;
        self.engine.act(Method::POST, &format!("/containers/{container}/start")).await.map_err(start(id))?;
        let found = self.container(&container).await?.unwrap_or_default();
        let sandbox = self.link(record, &found, identity)?;
        self.ready(sandbox).await
    }

    fn write_identity(&self, id: &SandboxId, identity: &Identity) -> Result<(), SandboxError> {
        let path = self.folder_of(id).join("run").join(IDENTITY_FILE);
        let bytes = serde_json::to_vec(identity).map_err(|error| SandboxError::io("write", &path)(error.into()))?;
        whole::replace(&path, &bytes, self.private()).map_err(SandboxError::io("write", &path))
    }

    /// Listens for the guest of a container and makes the handle.
    pub(super) fn link(&self, record: &Record, found: &Container, identity: Identity) -> Result<Sandbox, SandboxError> {
        let id = &record.spec.id;
        let run = self.folder_of(id).join("run");
        self.write_identity(id, &identity)?;
        if let Some(sandbox) = self.open_sandboxes().get(id).filter(|sandbox| !sandbox.link().is_closed()) {
            sandbox.link().identify(identity);
            return Ok(sandbox.clone());
        }
        let stop = self.stop.child_token();
        if let Some(gateway) = &record.spec.gateway {
            let listener = socket::bind(&run, GATEWAY_SOCKET).map_err(SandboxError::io("listen in", &run))?;
            self.tasks.spawn(socket::relay(listener, gateway.clone(), stop.clone(), self.tasks.clone()));
        }
        let link = Link::listen(id, identity, &run, stop.clone(), &self.tasks);
        let link = link.map_err(SandboxError::io("listen in", &run))?;
        self.let_in(&run)?;
        let sandbox = Sandbox::new(Parts {
            link,
            groups: found.state.pid.filter(|pid| *pid != 0).map(cgroup::of_process).unwrap_or_default(),
            written: Arc::new(OfContainer { engine: self.engine.clone(), container: found.id.clone() }),
            lost: record.lost.clone(),
            limits: record.spec.limits,
            events: broadcast::Sender::new(64),
            gate: sync::watch::Sender::new(Gate::Open),
        });
        self.open_sandboxes().insert(id.clone(), sandbox.clone());
        self.tasks.spawn(watch::end(self.engine.clone(), found.id.clone(), sandbox.clone(), stop));
        Ok(sandbox)
    }

    /// Lets a root that has another number connect to the sockets.
    fn let_in(&self, run: &Path) -> Result<(), SandboxError> {
        use std::os::unix::fs::PermissionsExt;
        for name in [HOST_SOCKET, GATEWAY_SOCKET] {
            let path = run.join(name);
            if self.private() != 0o600 && path.exists() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
                    .map_err(SandboxError::io("open", &path))?;
            }
        }
        Ok(())
    }

    pub(super) async fn ready(&self, sandbox: Sandbox) -> Result<Sandbox, SandboxError> {
        match tokio::time::timeout(READY_LIMIT, sandbox.link().connected()).await {
            Ok(connected) => connected.map(|()| sandbox),
            Err(_) => Err(SandboxError::Deadline {
                what: format!(
                    "hear of the guest of sandbox {} (docker logs {})",
                    sandbox.id(),
                    container::name(&self.instance, sandbox.id().as_str())
                ),
                seconds: READY_LIMIT.as_secs(),
            }),
        }
    }
}

/// How many numbers this machine has for processes (proc_sys_kernel(5)).
fn process_numbers() -> u64 {
    let known = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    known.unwrap_or(u64::MAX)
}

/// What is gone when a container is not there that a record speaks of.
fn lost(old: &Record) -> Option<String> {
    let container = old.container.as_ref()?;
    let stand_in = if old.below.is_empty() { "a fresh start" } else { "the snapshot before it" };
    Some(format!("its container {} was removed; {stand_in} stands in for it", container.get(..12).unwrap_or(container)))
}

fn no_image(name: &str) -> SandboxError {
    let reason = format!("find the image {name}: the container daemon does not have it (docker pull {name})");
    SandboxError::Machine { reason }
}

fn start(id: &SandboxId) -> impl FnOnce(super::engine::EngineError) -> SandboxError {
    let id = id.clone();
    move |error| SandboxError::Start { id, reason: error.to_string() }
}
