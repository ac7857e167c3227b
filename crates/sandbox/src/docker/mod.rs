//! Sandboxes as containers of a Docker or Podman daemon on this machine, with whatever runtime it has: runc, gVisor, Kata.
//!
//! ```text
//!   server ──unix socket──▶ dockerd                     DATA_DIR/
//!     ▲                        └─ container: guest        bin/          the guest's program
//!     └── the guest dials home over host.sock ──┘         pins/         layers kept by name
//!                                                         sandboxes/ID/{record.json, run/}
//! ```
//!
//! The daemon holds the files; the record of a sandbox says which container has them, and which [images](layers) are its
//! frozen layers. A container without a record is what a crash left. The folder `run` is all that a container sees of the
//! host, beside what was asked to be mounted: the guest's program, who it is, and the two sockets.

mod api;
mod archive;
mod base;
mod container;
mod engine;
mod layers;
mod probe;
mod record;
mod start;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hob_guest::protocol::Identity;
use hyper::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::layer::LayerId;
use crate::probe::Finding;
use crate::provider::{Capabilities, Limit, Listed, Provider, SandboxError, Snapshot};
use crate::sandbox::Sandbox;
use crate::spec::{SandboxId, Spec, Token};
use crate::{disk, filter, folder, program};
use api::{Container, Info, Summary};
use container::{INSTANCE, SANDBOX};
use engine::{Engine, quoted};

/// How to open the provider.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The folder for what the server itself has to know; made where it is missing. One server at a time uses it.
    pub data_dir: PathBuf,
    /// The daemon's unix socket.
    pub socket: PathBuf,
    /// The runtime of the containers, such as `runsc`; the daemon's default where absent.
    pub runtime: Option<String>,
    /// The image that stands for [`Base::Host`](crate::Base::Host); sandboxes on that base are refused where absent.
    pub image: Option<String>,
}

/// The provider of sandboxes in containers. Cheap to clone; when the last clone is dropped, the sandboxes run on.
#[derive(Debug, Clone)]
pub struct Docker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    instance: String,
    engine: Engine,
    info: Info,
    runtime: Option<String>,
    image: Option<String>,
    program: PathBuf,
    filters: Vec<Vec<u8>>,
    open: Mutex<BTreeMap<SandboxId, Sandbox>>,
    /// One create, suspend or destroy of a sandbox at a time.
    busy: Mutex<BTreeMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while a layer comes into use and while the unused ones are looked for.
    layers_in_use: tokio::sync::Mutex<()>,
    /// One import of a base at a time.
    importing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Docker {
    /// Opens the data folder and asks the daemon what it can do. Sandboxes that run already are found by
    /// [`Provider::list`].
    ///
    /// # Errors
    /// The folder cannot be used, no daemon answers, or it has no such runtime.
    pub async fn open(config: DockerConfig) -> Result<Self, SandboxError> {
        let tasks = TaskTracker::new();
        let engine = Engine::new(&config.socket, &tasks);
        let info: Info = engine.get("/info").await?;
        if let Some(reason) = config.runtime.as_deref().and_then(|runtime| probe::no_runtime(&info, runtime)) {
            return Err(SandboxError::Machine { reason });
        }
        let inner = Arc::new(Inner::open(config, engine, info, tasks)?);
        let storage = PathBuf::from(inner.info.docker_root_dir.clone().unwrap_or_default());
        inner.tasks.spawn(watch::limits(Arc::downgrade(&inner), storage, inner.stop.clone()));
        Ok(Self { inner })
    }

    /// What the daemon at this socket has and lacks for sandboxes, with the words that mend it.
    pub async fn probe(socket: &Path, runtime: Option<&str>, image: Option<&str>) -> Vec<Finding> {
        probe::probe(socket, runtime, image).await
    }
}

impl Inner {
    fn open(config: DockerConfig, engine: Engine, info: Info, tasks: TaskTracker) -> Result<Self, SandboxError> {
        for part in ["bin", "pins", "sandboxes"] {
            let part = config.data_dir.join(part);
            fs::create_dir_all(&part).map_err(SandboxError::io("create", &part))?;
        }
        let folder = fs::canonicalize(&config.data_dir).map_err(SandboxError::io("find", &config.data_dir))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(SandboxError::io("close", &folder))?;
        Ok(Self {
            instance: folder::name(&folder),
            engine,
            info,
            runtime: config.runtime,
            image: config.image,
            program: program::install(&folder.join("bin"))?,
            filters: filter::programs().map_err(|reason| SandboxError::Machine { reason })?,
            open: Mutex::default(),
            busy: Mutex::default(),
            layers_in_use: tokio::sync::Mutex::default(),
            importing: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tasks,
            folder,
        })
    }

    fn open_sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Sandbox>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, id: &SandboxId) -> PathBuf {
        self.folder.join("sandboxes").join(id.as_str())
    }

    fn turn_of(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(id.clone()).or_default())
    }

    /// A container as it is now; `None` where it is gone.
    async fn container(&self, container: &str) -> Result<Option<Container>, SandboxError> {
        self.engine.find(&format!("/containers/{container}/json")).await.map_err(SandboxError::from)
    }

    /// Every container of this data folder.
    async fn containers(&self) -> Result<Vec<Summary>, SandboxError> {
        let filter = quoted(&json!({ "label": [format!("{INSTANCE}={}", self.instance)] }).to_string());
        self.engine.get(&format!("/containers/json?all=true&filters={filter}")).await.map_err(SandboxError::from)
    }

    async fn remove_container(&self, container: &str) -> Result<(), SandboxError> {
        self.engine
            .settle(Method::DELETE, &format!("/containers/{container}?force=true&v=true"))
            .await
            .map_err(SandboxError::from)
    }

    /// Ends every process; the handle hears `reason`.
    async fn end(&self, id: &SandboxId, reason: &str) -> Result<(), SandboxError> {
        let sandbox = self.open_sandboxes().remove(id);
        if let Some(sandbox) = sandbox {
            sandbox.link().close(reason);
        }
        let Some(container) = record::read(&self.folder_of(id))?.and_then(|record| record.container) else {
            return Ok(());
        };
        // What runs in a sandbox is ended and not asked: its owner had its turn.
        self.engine.settle(Method::POST, &format!("/containers/{container}/stop?t=0")).await.map_err(SandboxError::from)
    }

    /// Removes the containers that no record speaks of: those of starts that a crash cut short.
    async fn sweep(&self) -> Result<(), SandboxError> {
        for left in self.containers().await? {
            let Some(id) = left.labels.get(SANDBOX).and_then(|name| SandboxId::new(name.clone()).ok()) else {
                continue;
            };
            // Nobody starts it meanwhile.
            let turn = self.turn_of(&id);
            let _turn = turn.lock().await;
            let known = record::read(&self.folder_of(&id))?.and_then(|record| record.container);
            if known.as_ref() != Some(&left.id) {
                tracing::info!(sandbox.id = %id, "removing a container that a crash left behind");
                self.remove_container(&left.id).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Provider for Docker {
    fn capabilities(&self) -> Capabilities {
        let info = &self.inner.info;
        let counted = [
            (Limit::Cpu, info.cpu_cfs_quota, "processor time"),
            (Limit::Memory, info.memory_limit, "memory"),
            (Limit::Processes, info.pids_limit, "processes"),
        ];
        let unheld = counted.into_iter().filter(|(_, held, _)| *held == Some(false));
        let unheld = unheld.map(|(limit, _, what)| (limit, format!("the container daemon cannot limit {what} here")));
        let storage = PathBuf::from(info.docker_root_dir.clone().unwrap_or_default());
        let unseen = disk::free_bytes(&storage).err().map(|error| {
            let reason = format!(
                "the daemon's storage at {} cannot be seen ({error}): what is written is measured only every 30 s",
                storage.display()
            );
            (Limit::Disk, reason)
        });
        Capabilities {
            provider: "docker".to_owned(),
            unheld: unheld.chain(unseen).collect(),
            gates: false,
            no_live_snapshots: Some("a container becomes an image while it stands still".to_owned()),
        }
    }

    async fn create(&self, spec: Spec) -> Result<Sandbox, SandboxError> {
        let inner = Arc::clone(&self.inner);
        // A large base or workspace takes its time once. Whoever gives up waiting finds it there at the next try.
        let starting = self.inner.tasks.spawn(async move {
            let turn = inner.turn_of(&spec.id);
            let _turn = turn.lock().await;
            inner.start(spec).await
        });
        starting.await.unwrap_or_else(|error| Err(SandboxError::Machine { reason: error.to_string() }))
    }

    async fn attach(&self, id: &SandboxId, epoch: u64, token: Token) -> Result<Option<Sandbox>, SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        let Some(record) = record::read(&self.inner.folder_of(id))? else { return Ok(None) };
        let Some(container) = &record.container else { return Ok(None) };
        let Some(found) = self.inner.container(container).await?.filter(|found| found.state.running) else {
            return Ok(None);
        };
        let identity = Identity { sandbox: id.to_string(), epoch, token: token.0 };
        let sandbox = self.inner.link(&record, &found, identity)?;
        self.inner.ready(sandbox).await.map(Some)
    }

    async fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let running = self.inner.containers().await?.into_iter().filter(|container| container.state == "running");
        let running: BTreeSet<String> = running.map(|container| container.id).collect();
        let listed = folder::sandboxes(&self.inner.folder)?.into_iter().map(|id| {
            let container = record::read(&self.inner.folder_of(&id))?.and_then(|record| record.container);
            Ok(Listed { running: container.is_some_and(|container| running.contains(&container)), id })
        });
        listed.collect()
    }

    async fn sweep(&self) -> Result<(), SandboxError> {
        self.inner.sweep().await?;
        self.inner.collect().await;
        self.inner.remove_old_bases().await
    }

    async fn suspend(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.end(id, "it was suspended").await
    }

    async fn snapshot(&self, id: &SandboxId) -> Result<Snapshot, SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.end(id, "a snapshot of it was taken").await?;
        self.inner.freeze(id).await
    }

    async fn pin(&self, name: &SandboxId, layers: &[LayerId]) -> Result<(), SandboxError> {
        self.inner.pin(name, layers).await
    }

    async fn unpin(&self, name: &SandboxId) -> Result<(), SandboxError> {
        self.inner.unpin(name).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.end(id, "it was destroyed").await?;
        // By its name: also one that a crash left before its record knew of it.
        self.inner.remove_container(&container::name(&self.inner.instance, id.as_str())).await?;
        record::remove(&self.inner.folder_of(id))?;
        self.inner.collect().await;
        Ok(())
    }
}
