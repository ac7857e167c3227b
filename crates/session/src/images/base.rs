//! The system under an image: this machine's, Debian made of its packages, or an image of a registry.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hob_sandbox::Base;
use hob_sandbox::image::{ImageReference, PullProgress, Rootfs};
use sha2::{Digest, Sha256};

use super::log::BuildLog;
use crate::environment;
use crate::owned::House;

/// What says whether this machine's system has changed: Debian's list of installed packages, and the release.
const TELLING: [&str; 2] = ["/var/lib/dpkg/status", "/etc/os-release"];

/// A base that is there.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) base: Base,
    /// Changes with what it is made of.
    pub(super) digest: String,
    /// Variables that it wants set.
    pub(super) env: BTreeMap<String, String>,
    /// What is not as it was asked for.
    pub(super) notes: Vec<String>,
}

/// Gets the base of an environment.
///
/// # Errors
/// It is not to be had, and why.
pub(super) async fn prepare(house: &House, base: &environment::Base, log: &BuildLog) -> Result<Ready, String> {
    match base {
        environment::Base::Host => Ok(host(&house.config.base)),
        environment::Base::Debian { suite } => {
            log.say(&format!("making Debian {suite} of its packages, where it is not there yet")).await;
            let rootfs = house.images.store.debian(suite).await;
            Ok(unpacked(rootfs.map_err(|error| format!("failed to {error}"))?))
        }
        environment::Base::Image { reference } => pull(house, reference, log).await,
        environment::Base::Dockerfile(file) => Err(format!(
            "failed to build {}: this version of Hob builds no Dockerfile; build it elsewhere, push it to a registry, \
             and name that image as `base`",
            file.path
        )),
        environment::Base::Devcontainer { path } => Err(format!("failed to read {path}")),
    }
}

/// What the base of this environment would be made of, without asking anybody; `None` where that cannot be known.
pub(super) fn host(base: &Base) -> Ready {
    let mut digest = Sha256::new();
    digest.update(format!("{base:?}"));
    let telling = match base {
        Base::Host => TELLING.map(Path::new).to_vec(),
        Base::Directory(folder) => vec![folder.as_path()],
        Base::Layers(_) => Vec::new(),
    };
    for path in telling {
        let known = std::fs::metadata(path).map(|found| (found.mtime(), found.mtime_nsec(), found.size()));
        digest.update(format!("{:?}", known.ok()));
    }
    let digest = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ready { base: base.clone(), digest, env: BTreeMap::new(), notes: Vec::new() }
}

async fn pull(house: &House, reference: &str, log: &BuildLog) -> Result<Ready, String> {
    let parsed = ImageReference::parse(reference).map_err(|error| format!("failed to {error}"))?;
    let registry = parsed.registry();
    let Some(credentials) = house.config.images.registries.get(registry) else {
        return Err(format!(
            "failed to pull {parsed}: {registry} is none of the registries that this server pulls from; `registries` of \
             [images] in hob.toml says which"
        ));
    };
    log.say(&format!("pulling {parsed}")).await;
    let fetched = AtomicU64::new(0);
    let progress = |progress| {
        if let PullProgress::Fetched { bytes, .. } = progress {
            fetched.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let pulled = house.images.store.pull(&parsed, credentials.as_ref(), &progress).await;
    let rootfs = pulled.map_err(|error| format!("failed to {error}"))?;
    let mib = fetched.load(Ordering::Relaxed) >> 20;
    log.say(&format!("{} has {} layers; {mib} MiB were fetched", rootfs.digest, rootfs.layers.len())).await;
    Ok(unpacked(rootfs))
}

fn unpacked(rootfs: Rootfs) -> Ready {
    Ready {
        base: Base::Layers(rootfs.layers),
        digest: rootfs.digest.to_string(),
        env: rootfs.config.env.into_iter().collect(),
        notes: rootfs.notes,
    }
}
