//! How a sandbox is built, or a writer beside it: its folders on disk, the mounts of its root, the arguments of `bwrap`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hob_guest::launch::{self, Cgroup, Part, Step, Tree};
use hob_guest::protocol::FOLDER;

use super::Inner;
use super::record::Record;
use crate::host::HostBase;
use crate::inside;
use crate::provider::SandboxError;
use crate::spec::{Base, Gate, Mount, WORKSPACE};

/// A plan in the making.
pub(super) struct Plan<'a> {
    pub(super) inner: &'a Inner,
    pub(super) record: &'a Record,
    pub(super) base: Option<&'a HostBase>,
    pub(super) groups: Vec<Cgroup>,
    pub(super) top: Top,
}

/// Where lies what is written.
pub(super) enum Top {
    /// All of it in the sandbox's layer, in this folder; but for the workspace, whose gate stands so at the start.
    Layer(PathBuf, Gate),
    /// In the sandbox's workspace, and else in memory: it is a writer.
    Workspace,
}

/// An overlay: where it is inside, the name of its writable layer, and its read-only layers, topmost first.
struct Overlay {
    target: String,
    name: String,
    lower: Vec<PathBuf>,
}

impl Plan<'_> {
    /// Makes what has to be on disk; the plan is for the helper.
    pub(super) fn prepare(self) -> Result<launch::Plan, SandboxError> {
        let spec = &self.record.spec;
        let folder = self.folder();
        let overlays = self.overlays()?;
        let shifted = self.inner.ids.can_shift();
        let mut trees = vec![match &self.top {
            Top::Layer(layer, _) => Tree { source: layer.clone(), inside: false, shifted, writable: true },
            Top::Workspace => Tree { source: WORKSPACE.into(), inside: true, shifted: false, writable: true },
        }];
        let below: Vec<PathBuf> = self.record.below.0.iter().map(|id| self.inner.layers.tree_of(id)).collect();
        let read_only = |source: &Path| Tree { source: source.to_owned(), inside: false, shifted, writable: false };
        trees.extend(below.iter().map(|source| read_only(source)));
        self.make_folders(&folder, &overlays, &below)?;

        let mut add = |source: &Path| {
            trees.push(read_only(source));
            trees.len() - 1
        };
        let mut steps = Vec::new();
        for overlay in overlays {
            let frozen = below.iter().zip(1..).filter(|(tree, _)| tree.join(&overlay.name).is_dir());
            let frozen = frozen.map(|(_, tree)| Part { tree, path: overlay.name.clone() });
            let base = overlay.lower.iter().map(|source| Part { tree: add(source), path: String::new() });
            let lower = frozen.chain(base).collect();
            steps.push(self.step(overlay, lower));
        }
        steps.push(Step::Devices);
        if self.is_writer() {
            steps.push(Step::Attach { tree: 0, target: WORKSPACE.to_owned() });
        }
        for mount in self.mounts() {
            steps.push(Step::Attach { tree: add(&mount.source), target: mount.target.to_string_lossy().into_owned() });
        }
        steps.push(Step::Attach { tree: add(&folder.join("run")), target: FOLDER.to_owned() });
        Ok(launch::Plan {
            id: spec.id.to_string(),
            ids: self.inner.ids.of_sandbox(self.record.slot),
            cgroups: self.groups.clone(),
            trees,
            steps,
            gate: self.gate(),
            bwrap: self.bwrap(),
            env: self.environment(),
            file_bytes: spec.limits.disk_bytes,
            filters: (0..self.inner.filters.len())
                .map(|number| format!("{FOLDER}/filter-{number}.bpf").into())
                .collect(),
            log: folder.join("log"),
        })
    }

    fn is_writer(&self) -> bool {
        matches!(self.top, Top::Workspace)
    }

    fn folder(&self) -> PathBuf {
        let id = &self.record.spec.id;
        if self.is_writer() { self.inner.writer_folder_of(id) } else { self.inner.folder_of(id) }
    }

    /// A writer is let through the gate, and has none.
    fn gate(&self) -> Option<launch::Gate> {
        match self.top {
            Top::Layer(_, gate) => Some(launch::Gate { target: WORKSPACE.to_owned(), closed: gate == Gate::Closed }),
            Top::Workspace => None,
        }
    }

    fn step(&self, overlay: Overlay, lower: Vec<Part>) -> Step {
        let part = |what: &str| Part { tree: 0, path: format!("{what}/{}", overlay.name) };
        match self.top {
            Top::Layer(..) => Step::Overlay { lower, upper: part("tree"), work: part("work"), target: overlay.target },
            Top::Workspace => Step::Fleeting { lower, target: overlay.target },
        }
    }

    /// Folders of the host, in the order in which they are mounted. Those within the workspace come to a writer with it.
    fn mounts(&self) -> impl Iterator<Item = &Mount> {
        let toolchains: &[_] = if self.base.is_some() { &self.inner.toolchains.mounts } else { &[] };
        let mounts = toolchains.iter().chain(&self.record.spec.mounts);
        mounts.filter(|mount| !self.is_writer() || !mount.target.starts_with(WORKSPACE))
    }

    fn overlays(&self) -> Result<Vec<Overlay>, SandboxError> {
        let mut overlays = Vec::new();
        match (&self.record.spec.base, self.base) {
            (Base::Directory(root), _) => {
                overlays.push(Overlay { target: "/".to_owned(), name: "root".to_owned(), lower: vec![root.clone()] });
            }
            (Base::Layers(layers), _) => {
                overlays.push(Overlay { target: "/".to_owned(), name: "root".to_owned(), lower: layers.clone() });
            }
            (Base::Host, Some(base)) => {
                let lower = vec![base.skeleton.clone()];
                overlays.push(Overlay { target: "/".to_owned(), name: "root".to_owned(), lower });
                for (mask, shown) in &base.shown {
                    let target = shown.to_string_lossy().into_owned();
                    let name = target.trim_start_matches('/').replace('/', "-");
                    overlays.push(Overlay { target, name, lower: vec![mask.clone(), shown.clone()] });
                }
            }
            (Base::Host, None) => {
                return Err(SandboxError::Machine { reason: "prepare this machine's base".to_owned() });
            }
        }
        if let Some(workspace) = self.record.spec.workspace.as_ref().filter(|_| !self.is_writer()) {
            let lower = vec![workspace.clone()];
            overlays.push(Overlay { target: WORKSPACE.to_owned(), name: "workspace".to_owned(), lower });
        }
        let missing = overlays.iter().flat_map(|overlay| &overlay.lower).find(|folder| !folder.is_dir());
        match missing {
            None => Ok(overlays),
            Some(folder) => Err(SandboxError::io("use", folder)(ErrorKind::NotADirectory.into())),
        }
    }

    fn make_folders(&self, folder: &Path, overlays: &[Overlay], below: &[PathBuf]) -> Result<(), SandboxError> {
        let io = SandboxError::io;
        let layer = match &self.top {
            Top::Layer(layer, _) => Some(layer),
            Top::Workspace => None,
        };
        for (overlay, layer) in overlays.iter().zip(layer.into_iter().cycle()) {
            let work = layer.join("work").join(&overlay.name);
            fs::create_dir_all(&work).map_err(io("create", &work))?;
            let upper = layer.join("tree").join(&overlay.name);
            if !upper.exists() {
                fs::create_dir_all(&upper).map_err(io("create", &upper))?;
                dress_top(&upper, overlay, below).map_err(io("open", &upper))?;
            }
        }
        let run = folder.join("run");
        fs::create_dir_all(&run).map_err(io("create", &run))?;
        let programs = self.inner.filters.iter().enumerate().map(|(n, path)| (format!("filter-{n}.bpf"), path));
        for (name, source) in programs.chain([("guest".to_owned(), &self.inner.program)]) {
            put(source, &run.join(&name)).map_err(io("write", &run.join(&name)))?;
        }
        Ok(())
    }

    fn bwrap(&self) -> Vec<String> {
        let id = self.record.spec.id.as_str();
        let mut arguments = vec![self.inner.bwrap.to_string_lossy().into_owned()];
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["--proc", "/proc"]);
        add(&["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
        add(&["--hostname", id, "--new-session", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]);
        for capability in inside::CAPABILITIES {
            add(&["--cap-add", capability]);
        }
        add(&["--chdir", "/", "--", &format!("{FOLDER}/guest"), "init"]);
        arguments
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut path: Vec<&str> = Vec::new();
        let mut env = BTreeMap::new();
        if self.base.is_some() {
            path.extend(self.inner.toolchains.path.iter().map(String::as_str));
            env.extend(self.inner.toolchains.env.clone());
        }
        path.extend(["/root/.cargo/bin", "/root/.local/bin", "/root/go/bin", inside::PATH]);
        let spec = &self.record.spec;
        let reaches_gateway = spec.gateway.is_some() && !self.is_writer();
        env.extend(inside::environment(spec, &path.join(":"), reaches_gateway));
        env
    }
}

/// The writable layer says who owns the top folder of an overlay and who may enter it: as the layer below it does, or the
/// base, but for the checkout, which belongs to the host's user.
fn dress_top(upper: &Path, overlay: &Overlay, below: &[PathBuf]) -> std::io::Result<()> {
    let frozen = below.iter().find_map(|tree| fs::metadata(tree.join(&overlay.name)).ok());
    if let Some(frozen) = frozen {
        std::os::unix::fs::chown(upper, Some(frozen.uid()), Some(frozen.gid()))?;
        return fs::set_permissions(upper, frozen.permissions());
    }
    let base = overlay.lower.first().filter(|_| overlay.name != "workspace");
    let mode = base.and_then(|base| fs::metadata(base).ok()).map(|base| base.permissions());
    fs::set_permissions(upper, mode.unwrap_or_else(|| Permissions::from_mode(0o755)))
}

/// Gives a file another name, or copies it where that cannot be done.
fn put(source: &Path, target: &Path) -> std::io::Result<()> {
    match fs::remove_file(target) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(source, target).or_else(|_| fs::copy(source, target).map(drop))
}
