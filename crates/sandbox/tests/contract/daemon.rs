//! The container daemon that the suite uses where one is, asked with curl: the suite is not to see it through the eyes of
//! the provider.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use hob_sandbox::SandboxId;
use serde_json::Value;

/// Where most daemons listen.
const USUAL: &str = "/var/run/docker.sock";

/// The daemon's socket: `HOB_TEST_DOCKER`, which has to answer where it is set, or the usual one. Where none answers, the
/// word is said once, past the test harness, which keeps what tests that pass have printed.
#[expect(clippy::explicit_write, reason = "the harness keeps what the macros print")]
pub fn socket() -> Option<PathBuf> {
    static SOCKET: OnceLock<Option<PathBuf>> = OnceLock::new();
    SOCKET
        .get_or_init(|| {
            let wanted = std::env::var_os("HOB_TEST_DOCKER").map(PathBuf::from);
            let socket = wanted.clone().unwrap_or_else(|| PathBuf::from(USUAL));
            let reached = UnixStream::connect(&socket);
            assert!(wanted.is_none() || reached.is_ok(), "HOB_TEST_DOCKER={}: {reached:?}", socket.display());
            if let Err(error) = reached {
                let why = format!("no Docker daemon answers at {} ({error})", socket.display());
                let mend = "start one, or name its socket in HOB_TEST_DOCKER";
                writeln!(std::io::stderr(), "skipped: what is tested in containers, as {why}; {mend}").unwrap();
                return None;
            }
            Some(socket)
        })
        .clone()
}

fn ask(method: &str, path: &str) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--globoff", "--request", method, "--unix-socket"]).arg(socket().unwrap());
    let output = curl.arg(format!("http://docker{path}")).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Containers that are given a folder below `data`: their IDs and names.
fn containers(data: &Path) -> Vec<(String, String)> {
    let all = ask("GET", "/containers/json?all=true");
    let ours = all.as_array().into_iter().flatten().filter(|one| one.to_string().contains(&*data.to_string_lossy()));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ours.map(|one| (text(&one["Id"]), text(&one["Names"][0]))).collect()
}

/// Kills a sandbox's container.
pub fn kill(data: &Path, id: &SandboxId) {
    let found = containers(data);
    let (container, _) = found.iter().find(|(_, name)| name.ends_with(&format!("-{id}"))).unwrap();
    ask("POST", &format!("/containers/{container}/kill"));
}

/// Containers and images of a sandbox.
pub fn left(data: &Path, id: &SandboxId) -> Vec<String> {
    let end = format!("-{id}");
    let containers = containers(data).into_iter().map(|(_, name)| name).filter(|name| name.ends_with(&end));
    let images = ask("GET", &format!("/images/json?filters={{%22reference%22:[%22hob-*:{id}.*%22]}}"));
    let tags =
        images.as_array().into_iter().flatten().flat_map(|image| image["RepoTags"].as_array().into_iter().flatten());
    containers.chain(tags.filter_map(Value::as_str).map(str::to_owned)).collect()
}

/// What the daemon says of a sandbox's container.
pub fn inspect(data: &Path, id: &SandboxId) -> Value {
    let (container, _) = containers(data).into_iter().find(|(_, name)| name.ends_with(&format!("-{id}"))).unwrap();
    ask("GET", &format!("/containers/{container}/json"))
}

/// Removes every container that is given a folder below `data`.
pub fn remove_all(data: &Path) {
    for (container, _) in containers(data) {
        ask("DELETE", &format!("/containers/{container}?force=true&v=true"));
    }
}
