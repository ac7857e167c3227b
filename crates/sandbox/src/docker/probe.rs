//! What a container daemon has and lacks for sandboxes, in words for a person, each with the words that mend it.

use std::path::Path;

use tokio_util::task::TaskTracker;

use super::api::{Image, Info};
use super::engine::{Engine, EngineError};
use crate::probe::{Finding, Grade};

/// Looks at everything that sandboxes in containers need.
pub(super) async fn probe(socket: &Path, runtime: Option<&str>, image: Option<&str>) -> Vec<Finding> {
    let engine = Engine::new(socket, &TaskTracker::new());
    let info: Info = match engine.get("/info").await {
        Ok(info) => info,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut findings = vec![daemon(&info), self::runtime(&info, runtime)];
    findings.extend(limits(&info));
    findings.push(base(&engine, image).await);
    findings
}

fn unreachable(error: &EngineError) -> Finding {
    let fix = "start it (systemctl start docker, or podman system service), let this user use its socket, or name \
               another one as sandbox.docker.socket in hob.toml";
    Finding::new("container daemon", Grade::Fail, format!("failed to {error}"), fix)
}

fn daemon(info: &Info) -> Finding {
    let version = info.server_version.as_deref().unwrap_or("of an unknown version");
    let driver = info.driver.as_deref().unwrap_or("an unknown driver");
    let detail = format!("{version} answers; it keeps files by {driver}");
    if driver == "vfs" {
        let fix = "let the daemon use overlay2: with vfs every container is a whole copy of its image";
        return Finding::new("container daemon", Grade::Warn, detail, fix);
    }
    Finding::new("container daemon", Grade::Ok, detail, "")
}

fn runtime(info: &Info, wanted: Option<&str>) -> Finding {
    match wanted.map(|wanted| (wanted, no_runtime(info, wanted))) {
        Some((_, Some(reason))) => {
            let fix = "register it with the daemon (\"runtimes\" in /etc/docker/daemon.json), or change \
                       sandbox.docker.runtime in hob.toml";
            Finding::new("container runtime", Grade::Fail, format!("failed to {reason}"), fix)
        }
        Some((wanted, None)) => Finding::new("container runtime", Grade::Ok, wanted, ""),
        None => {
            let own = info.default_runtime.as_deref().unwrap_or("the daemon's own");
            Finding::new("container runtime", Grade::Ok, format!("{own}, as the daemon has it"), "")
        }
    }
}

/// Why there is no such runtime, in words that follow "failed to"; `None` where there is.
pub(super) fn no_runtime(info: &Info, wanted: &str) -> Option<String> {
    let known: Vec<&str> = info.runtimes.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let missing = !known.contains(&wanted);
    missing.then(|| format!("find the runtime {wanted}: the container daemon knows {}", known.join(", ")))
}

fn limits(info: &Info) -> Vec<Finding> {
    let counted = [("cpu", info.cpu_cfs_quota), ("memory", info.memory_limit), ("processes", info.pids_limit)];
    let held = counted.into_iter().map(|(what, held)| {
        let name = format!("limit on {what}");
        match held {
            Some(false) => {
                let fix = "give the daemon the control groups of this machine";
                Finding::new(&name, Grade::Warn, "the container daemon cannot hold it here", fix)
            }
            Some(true) | None => Finding::new(&name, Grade::Ok, "holds", ""),
        }
    });
    held.collect()
}

async fn base(engine: &Engine, image: Option<&str>) -> Finding {
    let name = "image for repositories that name none";
    let Some(image) = image else {
        let fix = "name an image that the daemon has as sandbox.docker.image in hob.toml";
        return Finding::new(
            name,
            Grade::Warn,
            "none: only repositories whose environment has a base can be worked on",
            fix,
        );
    };
    match engine.find::<Image>(&format!("/images/{image}/json")).await {
        Ok(Some(_)) => Finding::new(name, Grade::Ok, image, ""),
        Ok(None) => {
            let detail = format!("the daemon does not have {image}");
            Finding::new(name, Grade::Fail, detail, format!("docker pull {image}"))
        }
        Err(error) => Finding::new(name, Grade::Fail, format!("failed to {error}"), "start the daemon again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_there_is_told_with_those_that_are() {
        let runtimes = ["runc", "runsc"].map(|name| (name.to_owned(), serde_json::Value::Null));
        let info = Info { runtimes: Some(runtimes.into()), ..Info::default() };
        assert_eq!(no_runtime(&info, "runsc"), None);
        let told = no_runtime(&info, "kata").unwrap();
        assert!(told.contains("kata") && told.contains("runc, runsc"), "{told}");
    }

    #[tokio::test]
    async fn where_no_daemon_is_one_finding_says_so_and_how_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let findings = probe(&folder.path().join("none.sock"), None, None).await;
        assert_eq!((findings.len(), findings[0].grade), (1, Grade::Fail));
        assert!(findings[0].detail.contains("none.sock") && findings[0].fix.contains("sandbox.docker.socket"));
    }
}
