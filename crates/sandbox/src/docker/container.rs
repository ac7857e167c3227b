//! What the daemon is told of a sandbox's container. Pure.

use std::path::{Path, PathBuf};

use hob_guest::protocol::{Entered, FOLDER};
use sha2::{Digest, Sha256};

use super::api::{BindMount, Create, Healthcheck, HostConfig, LogConfig, Ulimit};
use crate::hex::hex;
use crate::inside;
use crate::spec::Spec;

/// The label of every container: the data folder that it belongs to.
pub(super) const INSTANCE: &str = "hob.instance";

/// The label with the sandbox's name.
pub(super) const SANDBOX: &str = "hob.sandbox";

/// Length of a scheduling period, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The longest name of a machine (sethostname(2)), one less for the daemons that count differently.
const HOSTNAME_MAX: usize = 63;

/// What a container is made of that its sandbox's specification does not say.
#[derive(Debug, Clone)]
pub(super) struct Parts<'a> {
    /// The data folder's short name.
    pub(super) instance: &'a str,
    /// The image with its files.
    pub(super) image: &'a str,
    /// The folder of the guest.
    pub(super) run: PathBuf,
    /// The runtime; the daemon's own where absent.
    pub(super) runtime: Option<&'a str>,
    /// Files that a process may open, and processes of one user, where that is limited. Said, as Podman would else give
    /// what it cannot give where it lacks the capability to raise limits.
    pub(super) files_max: u64,
    pub(super) processes_max: Option<u64>,
}

/// What the container is called.
pub(super) fn name(instance: &str, id: &str) -> String {
    format!("hob-{instance}-{id}")
}

/// Describes the container.
pub(super) fn describe(spec: &Spec, parts: &Parts<'_>) -> Create {
    let id = spec.id.as_str();
    let labels = [(INSTANCE, parts.instance), (SANDBOX, id)];
    Create {
        hostname: id.get(..HOSTNAME_MAX).unwrap_or(id).to_owned(),
        image: parts.image.to_owned(),
        user: "0:0".to_owned(),
        working_dir: "/".to_owned(),
        entrypoint: vec![format!("{FOLDER}/guest"), "enter".to_owned()],
        cmd: Vec::new(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        healthcheck: Healthcheck { test: vec!["NONE".to_owned()] },
        host_config: host_config(spec, parts),
    }
}

fn host_config(spec: &Spec, parts: &Parts<'_>) -> HostConfig {
    let given = spec.mounts.iter().map(|mount| bind(&mount.source, &mount.target));
    let limits = &spec.limits;
    HostConfig {
        network_mode: "none".to_owned(),
        ipc_mode: "private".to_owned(),
        cap_drop: vec!["ALL".to_owned()],
        cap_add: inside::CAPABILITIES.iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect(),
        // Beside this the daemon's own filter of system calls stays in force; the guest adds ours to it.
        security_opt: vec!["no-new-privileges".to_owned()],
        memory: limits.memory_bytes,
        // Memory and swap together: no swap, as with the local provider.
        memory_swap: limits.memory_bytes,
        // Not as a number of cores: the daemon refuses more of them than the machine has.
        cpu_period: PERIOD_US,
        cpu_quota: u64::from(limits.cpu_millicores) * PERIOD_US / 1000,
        pids_limit: limits.processes,
        // Counted as memory of the sandbox; browsers fail with the daemons' 64 MiB.
        shm_size: limits.memory_bytes / 2,
        ulimits: ulimits(parts),
        mounts: given.chain([bind(&parts.run, Path::new(FOLDER))]).collect(),
        log_config: LogConfig {
            kind: "json-file".to_owned(),
            config: [("max-size".to_owned(), "1m".to_owned())].into(),
        },
        runtime: parts.runtime.map(str::to_owned),
    }
}

fn ulimits(parts: &Parts<'_>) -> Vec<Ulimit> {
    let both = |name: &str, limit| Ulimit { name: name.to_owned(), soft: limit, hard: limit };
    let processes = parts.processes_max.map(|limit| both("nproc", limit));
    processes.into_iter().chain([both("nofile", parts.files_max)]).collect()
}

fn bind(source: &Path, target: &Path) -> BindMount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    BindMount { kind: "bind".to_owned(), source: text(source), target: text(target), read_only: true }
}

/// A short name for what of a container can only be chosen when it is made.
pub(super) fn shape(create: &Create) -> String {
    let text = serde_json::to_vec(&create.host_config).unwrap_or_default();
    hex(&Sha256::digest(text)[..8])
}

/// What the guest gives process 1.
pub(super) fn entered(spec: &Spec, image_path: Option<&str>, filters: Vec<String>) -> Entered {
    let path = ["/root/.cargo/bin:/root/.local/bin:/root/go/bin", image_path.unwrap_or(inside::PATH)].join(":");
    Entered {
        env: inside::environment(spec, &path, spec.gateway.is_some()),
        file_bytes: spec.limits.disk_bytes,
        filters,
    }
}

/// What to do for a sandbox that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It runs.
    Connect,
    /// Its container stands as it is wanted.
    Resume,
    /// Its container stands, but what is wanted now can only be given to a new one.
    Remake,
    /// It has no container.
    Make,
}

/// Decides from the container's state (whether it runs; `None` where there is none) and its shape.
pub(super) fn decide(running: Option<bool>, shape_then: &str, shape_now: &str) -> Step {
    match running {
        Some(true) => Step::Connect,
        Some(false) if shape_then == shape_now => Step::Resume,
        Some(false) => Step::Remake,
        None => Step::Make,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Base, Limits, Mount, SandboxId, Token};

    fn spec() -> Spec {
        let mount = Mount { source: "/srv/tool".into(), target: "/opt/tool".into() };
        Spec {
            id: SandboxId::new("s-1").unwrap(),
            epoch: 1,
            token: Token("secret".to_owned()),
            base: Base::Host,
            layers: Vec::new(),
            workspace: None,
            mounts: vec![mount],
            env: [("PASSWORD".to_owned(), "hidden".to_owned())].into(),
            limits: Limits { cpu_millicores: 1_500, ..Limits::default() },
            gateway: None,
        }
    }

    fn described(spec: &Spec) -> Create {
        let run = PathBuf::from("/data/run");
        describe(
            spec,
            &Parts { instance: "abcd", image: "i", run, runtime: Some("runsc"), files_max: 1024, processes_max: None },
        )
    }

    #[test]
    fn a_container_is_given_nothing_of_the_host_but_what_was_asked_for_and_no_secret() {
        let create = described(&spec());
        let host = &create.host_config;
        assert_eq!((host.network_mode.as_str(), host.cap_drop.as_slice()), ("none", ["ALL".to_owned()].as_slice()));
        assert!(host.mounts.iter().all(|mount| mount.read_only), "{:?}", host.mounts);
        let targets: Vec<_> = host.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/opt/tool", "/.hob"]);
        assert_eq!((host.cpu_quota, host.memory_swap), (150_000, host.memory));
        let text = serde_json::to_string(&create).unwrap();
        assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
        assert!(text.contains(r#""Runtime":"runsc""#) && text.contains(r#""Type":"bind""#), "{text}");
        assert_eq!(entered(&spec(), Some("/opt/bin"), Vec::new()).env["PASSWORD"], "hidden");
    }

    #[test]
    fn a_container_is_made_anew_only_for_what_it_cannot_be_given_as_it_stands() {
        let then = shape(&described(&spec()));
        let now = |change: fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            decide(Some(false), &then, &shape(&described(&spec)))
        };
        assert_eq!(now(|spec| spec.env.clear()), Step::Resume);
        assert_eq!(now(|spec| spec.epoch = 7), Step::Resume);
        assert_eq!(now(|spec| spec.mounts.clear()), Step::Remake);
        assert_eq!(now(|spec| spec.limits.processes = 9), Step::Remake);
        assert_eq!(decide(Some(true), &then, "other"), Step::Connect);
        assert_eq!(decide(None, &then, &then), Step::Make);
    }
}
