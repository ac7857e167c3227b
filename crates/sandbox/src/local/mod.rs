//! Sandboxes on this machine: namespaces, overlays and control groups, without a daemon.
//!
//! ```text
//!   server ──socket──▶ helper (outlives the server)          DATA_DIR/
//!     ▲                  └─ stage ─▶ bwrap ─▶ guest            bin/       the guest's program
//!     └───── the guest dials home over host.sock ──────┘       base/      prepared bases
//!                                                              layers/    what sandboxes have written
//!                                                              pins/      layers kept by name
//!                                                              sandboxes/ID/{record.json, run/, log, writer/}
//!                                                              trash/     what is being deleted
//! ```
//!
//! A sandbox's folder is the truth: its record says what it is made of, its [layers](crate::layer) hold what it has
//! written. So one that died is made again by the same steps, and a restarted server knows everything that the last one
//! knew.

mod archives;
mod gate;
mod live;
mod plan;
mod record;
mod snapshot;
mod stand;
mod sweep;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hob_guest::protocol::{GATEWAY_SOCKET, Identity};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::Cgroups;
use crate::helper::{Ended, Helper};
use crate::host::{self, HostBase};
use crate::ids::Ids;
use crate::layer::{Chain, LayerId, Layers, boot_id};
use crate::link::Link;
use crate::probe::{self, Finding};
use crate::provider::{Capabilities, DiskUse, Listed, LiveSnapshot, Provider, SandboxError, Snapshot};
use crate::sandbox::{Parts, Sandbox};
use crate::spec::{Base, Gate, SandboxId, Spec, Token};
use crate::toolchains::{self, Toolchains};
use crate::{disk, filter, folder, program, socket};
use plan::{Plan, Top};
use record::Record;

/// How long a guest may take to dial home after its start.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How long what a killed helper ran may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How to open the local provider.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The folder for everything that sandboxes need; made where it is missing. One server at a time uses it.
    pub data_dir: PathBuf,
    /// The folder whose developer toolchains are offered inside; the user's home folder as a rule, none where absent.
    pub toolchains: Option<PathBuf>,
}

impl LocalConfig {
    /// A data folder, and the toolchains of the user's home folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), toolchains: std::env::var_os("HOME").map(PathBuf::from) }
    }
}

/// The provider of sandboxes on this machine. Cheap to clone; when the last clone is dropped, the sandboxes run on.
#[derive(Debug, Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    bwrap: PathBuf,
    program: PathBuf,
    filters: Vec<PathBuf>,
    ids: Ids,
    cgroups: Cgroups,
    toolchains: Toolchains,
    base: tokio::sync::OnceCell<HostBase>,
    helper: tokio::sync::Mutex<Option<Arc<Helper>>>,
    ended: broadcast::Sender<Ended>,
    open: Mutex<BTreeMap<SandboxId, Sandbox>>,
    /// The writer of each sandbox that has one.
    writers: Mutex<BTreeMap<SandboxId, Sandbox>>,
    /// One create, suspend or destroy of a sandbox at a time.
    busy: Mutex<BTreeMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
    slots: Mutex<BTreeSet<u32>>,
    layers: Layers,
    /// Held while a layer comes into use and while the unused ones are looked for.
    layers_in_use: Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Local {
    /// Opens the data folder and finds out what this machine can do. Sandboxes that run already are found by
    /// [`Provider::list`].
    ///
    /// # Errors
    /// The folder cannot be used, or `bwrap` is not there.
    pub async fn open(config: LocalConfig) -> Result<Self, SandboxError> {
        let opened = tokio::task::spawn_blocking(move || Inner::open(&config)).await;
        let inner = opened.map_err(|error| SandboxError::Machine { reason: error.to_string() })??;
        let local = Self { inner: Arc::new(inner) };
        local.inner.tasks.spawn(watch::ends(Arc::downgrade(&local.inner), local.inner.ended.subscribe()));
        local.inner.tasks.spawn(watch::limits(Arc::downgrade(&local.inner), local.inner.stop.clone()));
        Ok(local)
    }

    /// What this machine has and lacks for sandboxes, with the words that mend it.
    pub async fn probe(data_dir: &Path) -> Vec<Finding> {
        probe::probe(data_dir).await
    }

    /// Ends the helper and with it every sandbox; their files stay.
    ///
    /// # Errors
    /// The helper could not be told, or did not end.
    pub async fn shutdown(&self) -> Result<(), SandboxError> {
        let helper = self.inner.helper().await?;
        helper.shutdown().await.map_err(|reason| SandboxError::Machine { reason })
    }

    /// Prepares the base [`Base::Host`] ahead of the first sandbox; looking through the machine takes half a second.
    ///
    /// # Errors
    /// A part of the machine could not be looked through.
    pub async fn warm(&self) -> Result<(), SandboxError> {
        self.inner.base().await?;
        self.inner.helper().await.map(drop)
    }
}

impl Inner {
    fn open(config: &LocalConfig) -> Result<Self, SandboxError> {
        let folder = record::prepare_folder(&config.data_dir)?;
        let machine = |reason: String| SandboxError::Machine { reason };
        let bwrap = crate::ids::find_program("bwrap")
            .ok_or_else(|| machine("find bwrap: install the package bubblewrap".to_owned()))?;
        let program = program::install(&folder.join("bin"))?;
        let filters = record::write_filters(&folder.join("bin"), &filter::programs().map_err(machine)?)?;
        let toolchains = config.toolchains.as_deref().map(toolchains::find).unwrap_or_default();
        let slots = record::slots(&folder);
        let prefix = format!("hob-{}", folder::name(&folder));
        let inner = Self {
            cgroups: Cgroups::probe(&prefix),
            bwrap,
            program,
            filters,
            ids: Ids::of_this_process(),
            toolchains,
            base: tokio::sync::OnceCell::new(),
            helper: tokio::sync::Mutex::new(None),
            ended: broadcast::Sender::new(1024),
            open: Mutex::default(),
            writers: Mutex::default(),
            busy: Mutex::default(),
            slots: Mutex::new(slots),
            layers: Layers::new(folder.join("layers")),
            layers_in_use: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            folder,
        };
        inner.thaw_all();
        inner.collect();
        record::empty_trash(&inner.folder, &inner.tasks);
        Ok(inner)
    }

    fn open_sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Sandbox>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Sandbox>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, id: &SandboxId) -> PathBuf {
        self.folder.join("sandboxes").join(id.as_str())
    }

    fn turn_of(&self, id: &SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(id.clone()).or_default())
    }

    async fn helper(&self) -> Result<Arc<Helper>, SandboxError> {
        let mut held = self.helper.lock().await;
        if let Some(helper) = held.as_ref().filter(|helper| !helper.is_gone()) {
            return Ok(Arc::clone(helper));
        }
        let connected = Helper::connect(&self.folder, &self.program, &self.ids, self.ended.clone(), &self.tasks).await;
        let helper = Arc::new(connected.map_err(|reason| SandboxError::Machine { reason })?);
        *held = Some(Arc::clone(&helper));
        Ok(helper)
    }

    async fn base(&self) -> Result<&HostBase, SandboxError> {
        let prepare = || async {
            let (folder, links) = (self.folder.join("base"), self.toolchains.links.clone());
            let prepared = tokio::task::spawn_blocking(move || host::prepare(&folder, &links)).await;
            let reason = |reason| SandboxError::Machine { reason };
            let prepared = prepared.map_err(|error| reason(error.to_string()))?.map_err(reason)?;
            if let Err(error) = self.remove_old_bases(&prepared).await {
                tracing::warn!("failed to remove old bases: {error}");
            }
            Ok(prepared)
        };
        self.base.get_or_try_init(prepare).await
    }

    /// What was prepared for a sandbox, where its base is of the kind that is prepared.
    async fn base_of(&self, spec: &Spec) -> Result<Option<HostBase>, SandboxError> {
        match &spec.base {
            Base::Host => self.base().await.cloned().map(Some),
            Base::Directory(_) | Base::Layers(_) => Ok(None),
        }
    }

    /// Removes the bases that no sandbox that runs is made of; one that does not run is made of the current one again.
    async fn remove_old_bases(&self, current: &HostBase) -> Result<(), SandboxError> {
        let folder = self.folder.join("base");
        let mut used = BTreeSet::from([current.name.clone()]);
        if host::unused(&folder, &used).is_empty() {
            return Ok(());
        }
        let reason = |reason| SandboxError::Machine { reason };
        for id in self.helper().await?.running().await.map_err(reason)?.into_keys() {
            match record::read(&self.folder.join("sandboxes").join(id))? {
                Some(Record { base: Some(base), .. }) => drop(used.insert(base)),
                Some(Record { spec: Spec { base: Base::Directory(_) | Base::Layers(_), .. }, .. }) => {}
                // Nobody knows what it is made of.
                _ => return Ok(()),
            }
        }
        for base in host::unused(&folder, &used) {
            self.tasks.spawn_blocking(move || {
                host::remove(&base).unwrap_or_else(|error| tracing::warn!("failed to {error}"));
            });
        }
        Ok(())
    }

    /// The lowest range of IDs that no sandbox has.
    fn take_slot(&self) -> Result<u32, SandboxError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..crate::ids::SLOTS).find(|slot| !slots.contains(slot));
        let slot = free.ok_or_else(|| SandboxError::Machine { reason: "find a free range of user IDs".to_owned() })?;
        slots.insert(slot);
        Ok(slot)
    }

    fn give_slot(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    }

    /// Listens for the guest and makes the handle.
    fn link(&self, record: &Record, identity: Identity, gate: Gate) -> Result<Sandbox, SandboxError> {
        let id = &record.spec.id;
        let run = self.folder_of(id).join("run");
        let failed = || SandboxError::io("listen in", &run);
        record::write_identity(&run, &identity)?;
        if let Some(sandbox) = self.open_sandboxes().get(id).filter(|sandbox| !sandbox.link().is_closed()) {
            sandbox.link().identify(identity);
            sandbox.parts().gate.send_replace(gate);
            return Ok(sandbox.clone());
        }
        let stop = self.stop.child_token();
        if let Some(gateway) = &record.spec.gateway {
            let listener = socket::bind(&run, GATEWAY_SOCKET).map_err(failed())?;
            self.tasks.spawn(socket::relay(listener, gateway.clone(), stop.clone(), self.tasks.clone()));
        }
        let link = Link::listen(id, identity, &run, stop, &self.tasks).map_err(failed())?;
        let sandbox = Sandbox::new(Parts {
            link,
            groups: record.groups.clone(),
            written: Arc::new(disk::Folder(
                record.layer.as_ref().map(|id| self.layers.folder_of(id)).unwrap_or_default(),
            )),
            lost: record.lost.clone(),
            limits: record.spec.limits,
            gate: tokio::sync::watch::Sender::new(gate),
            events: broadcast::Sender::new(64),
        });
        self.open_sandboxes().insert(id.clone(), sandbox.clone());
        Ok(sandbox)
    }

    async fn ready(&self, sandbox: Sandbox) -> Result<Sandbox, SandboxError> {
        match tokio::time::timeout(READY_LIMIT, sandbox.link().connected()).await {
            Ok(connected) => connected.map(|()| sandbox),
            Err(_) => Err(SandboxError::Deadline {
                what: format!("hear of the guest of sandbox {}", sandbox.id()),
                seconds: READY_LIMIT.as_secs(),
            }),
        }
    }

    async fn start(self: &Arc<Self>, spec: Spec, gate: Gate) -> Result<Sandbox, SandboxError> {
        let id = spec.id.clone();
        let failed = |reason: String| SandboxError::Start { id: id.clone(), reason };
        let helper = self.helper().await?;
        let identity = Identity { sandbox: id.to_string(), epoch: spec.epoch, token: spec.token.0.clone() };
        // One without a record never ran: there is nothing to ask the helper.
        let (old, unreadable) = match record::read(&self.folder_of(&id)) {
            Ok(old) => (old, None),
            Err(error) => (None, Some(format!("nothing is known of the files that there were (failed to {error})"))),
        };
        if let Some(record) = &old
            && let Some(stands) = helper.running().await.map_err(failed)?.get(id.as_str())
        {
            let sandbox = self.link(record, identity, *stands)?;
            return self.ready(sandbox).await;
        }
        let base = self.base_of(&spec).await?;
        let slot = old.as_ref().map_or_else(|| self.take_slot(), |record| Ok(record.slot))?;
        let groups = self.cgroups.plan(id.as_str(), &spec.limits);
        let folders = groups.iter().map(|group| group.folder.clone()).collect();
        let name = base.as_ref().map(|base| base.name.clone());
        let record = Record {
            slot,
            groups: folders,
            base: name,
            layer: None,
            below: Chain::default(),
            live: None,
            boot: boot_id(),
            last_layer: old.as_ref().map_or(0, |old| old.last_layer),
            lost: unreadable,
            spec: spec.without_token(),
        };
        let prepared = self.on_layers(record, old.as_ref()).await.and_then(|(record, layer)| {
            let top = Top::Layer(layer, gate);
            let plan = Plan { inner: self, record: &record, base: base.as_ref(), groups, top };
            Ok((plan.prepare()?, record))
        });
        let (plan, record) = prepared.inspect_err(|_| {
            if old.is_none() {
                self.give_slot(slot);
            }
        })?;
        self.open_sandboxes().remove(&id);
        let sandbox = self.link(&record, identity, gate)?;
        match helper.start(plan).await {
            Ok(stands) if stands == gate => self.ready(sandbox).await,
            Ok(_) => {
                // Of an earlier release, it knows of no gates and lets everybody write.
                let reason = "close its workspace: the sandbox helper is older than this server";
                self.end(&id, reason).await?;
                Err(failed(format!("{reason}, and ends with its last sandbox")))
            }
            Err(reason) => {
                sandbox.link().close(&reason);
                Err(failed(reason))
            }
        }
    }

    /// Ends every process; the handle hears `reason`.
    async fn end(&self, id: &SandboxId, reason: &str) -> Result<(), SandboxError> {
        self.close_writer(id, reason);
        let sandbox = self.open_sandboxes().remove(id);
        if let Some(sandbox) = sandbox {
            sandbox.link().close(reason);
        }
        let helper = self.helper().await?;
        helper.kill(id.as_str()).await.map_err(|reason| SandboxError::Lost { id: id.clone(), reason })?;
        // The helper removes the groups of what it ran; those of a helper that was killed are left to us.
        let groups = record::read_if_whole(&self.folder_of(id)).map(|record| record.groups).unwrap_or_default();
        for group in groups {
            remove_group(&group).await?;
        }
        Ok(())
    }
}

/// Removes a control group whose last processes are still dying, as the kernel calls it busy until they are gone.
async fn remove_group(group: &Path) -> Result<(), SandboxError> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        match std::fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => return Err(SandboxError::io("remove", group)(error)),
        }
    }
}

#[async_trait]
impl Provider for Local {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            provider: "local".to_owned(),
            unheld: self.inner.cgroups.unheld.clone(),
            gates: true,
            no_live_snapshots: self.inner.no_live_snapshots(),
        }
    }

    async fn create(&self, spec: Spec) -> Result<Sandbox, SandboxError> {
        let turn = self.inner.turn_of(&spec.id);
        let _turn = turn.lock().await;
        self.inner.start(spec, Gate::Open).await
    }

    async fn create_closed(&self, spec: Spec) -> Result<Sandbox, SandboxError> {
        let turn = self.inner.turn_of(&spec.id);
        let _turn = turn.lock().await;
        self.inner.start(spec, Gate::Closed).await
    }

    async fn attach(&self, id: &SandboxId, epoch: u64, token: Token) -> Result<Option<Sandbox>, SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        let helper = self.inner.helper().await?;
        let running = helper.running().await.map_err(|reason| SandboxError::Lost { id: id.clone(), reason })?;
        let record = record::read(&self.inner.folder_of(id))?;
        let (Some(record), Some(gate)) = (record, running.get(id.as_str())) else { return Ok(None) };
        let identity = Identity { sandbox: id.to_string(), epoch, token: token.0 };
        let sandbox = self.inner.link(&record, identity, *gate)?;
        self.inner.ready(sandbox).await.map(Some)
    }

    async fn writer(&self, id: &SandboxId, token: Token) -> Result<Sandbox, SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.start_writer(id, token).await
    }

    async fn open_gate(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.open_gate(id).await
    }

    async fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let helper = self.inner.helper().await?;
        let running = helper.running().await.map_err(|reason| SandboxError::Machine { reason })?;
        let ids = folder::sandboxes(&self.inner.folder)?;
        Ok(ids.into_iter().map(|id| Listed { running: running.contains_key(id.as_str()), id }).collect())
    }

    async fn sweep(&self) -> Result<(), SandboxError> {
        self.inner.sweep().await
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

    async fn snapshot_live(&self, id: &SandboxId) -> Result<LiveSnapshot, SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.freeze_live(id).await
    }

    async fn export(&self, layers: &[LayerId], to: Box<dyn Write + Send>) -> Result<(), SandboxError> {
        self.inner.export(layers, to).await
    }

    async fn import(&self, name: &SandboxId, from: Box<dyn Read + Send>) -> Result<Vec<LayerId>, SandboxError> {
        self.inner.import(name, from).await
    }

    async fn disk_use(&self, id: &SandboxId) -> Result<Option<DiskUse>, SandboxError> {
        self.inner.disk_use(id).await
    }

    async fn pin(&self, name: &SandboxId, layers: &[LayerId]) -> Result<(), SandboxError> {
        self.inner.pin(name, layers)
    }

    async fn unpin(&self, name: &SandboxId) -> Result<(), SandboxError> {
        self.inner.unpin(name)
    }

    async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let turn = self.inner.turn_of(id);
        let _turn = turn.lock().await;
        self.inner.end(id, "it was destroyed").await?;
        let folder = self.inner.folder_of(id);
        let slot = record::read_if_whole(&folder).map(|record| record.slot);
        record::discard(&self.inner.folder, &folder, &self.inner.tasks)?;
        self.inner.collect();
        slot.into_iter().for_each(|slot| self.inner.give_slot(slot));
        Ok(())
    }
}
