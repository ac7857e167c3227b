//! A private server: where none runs, `hob run` starts one in the background and leaves it there, so that `--detach`
//! and a follow-up work. It uses the default data folder and ends with the machine or a signal.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::context::remark;
use super::{Client, Context, Failure};
use crate::serve::Running;

const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The server that runs, or one that is started now.
pub(super) async fn client(context: &Context) -> Result<Client, Failure> {
    let data_dir = context.data_dir()?;
    if context.global.server.is_some() || Running::find(&data_dir).is_some() {
        return context.client();
    }
    start(context, &data_dir).await?;
    context.client()
}

async fn start(context: &Context, data_dir: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::set_up(format!("{what}: {error}"));
    std::fs::create_dir_all(data_dir).map_err(|error| failed(&format!("make {}", data_dir.display()), error))?;
    let log_path = data_dir.join("server.log");
    let log = File::create(&log_path).map_err(|error| failed(&format!("write {}", log_path.display()), error))?;
    let program = std::env::current_exe().map_err(|error| failed("find this program", error))?;
    let mut serve = tokio::process::Command::new(program);
    serve.args(["serve", "--private", "--data-dir"]).arg(data_dir);
    if let Some(config) = &context.global.config {
        serve.arg("--config").arg(config);
    }
    let stdout = log.try_clone().map_err(|error| failed("share the log", error))?;
    // A group of its own, so that Ctrl-C in this terminal stops the turn and not the server.
    serve.stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0).current_dir("/");
    let mut child = serve.spawn().map_err(|error| failed("start a server", error))?;

    remark(&format!("no server runs; starting one in the background (log: {})", log_path.display()));
    let started = Instant::now();
    while started.elapsed() < READY_WITHIN {
        if Running::find(data_dir).is_some_and(|running| Some(running.pid) == child.id()) {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::set_up(format!("start a server ({status}): {}", last_words(&log_path))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Failure::set_up(format!("start a server within {} s; see {}", READY_WITHIN.as_secs(), log_path.display())))
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it left no word");
    last.strip_prefix("hob: ").unwrap_or(last).to_owned()
}
