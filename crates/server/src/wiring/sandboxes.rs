//! Sandboxes as the configuration wants them, and what the machine can hold of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hob_sandbox::{Finding, Local, LocalConfig, Provider};
use tokio_util::task::TaskTracker;

use crate::config::{Config, SandboxProvider};

/// Where sandboxes have their files.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("sandboxes")
}

/// Opens the provider of sandboxes, and prepares what the first one would wait for in the background.
///
/// # Errors
/// What this machine lacks, in words.
pub async fn open(config: &Config, data_dir: &Path, tasks: &TaskTracker) -> Result<Arc<dyn Provider>, String> {
    match config.sandbox.provider {
        SandboxProvider::Local => {
            let local = Local::open(LocalConfig::new(folder(data_dir))).await.map_err(|error| error.to_string())?;
            for (limit, reason) in local.capabilities().unheld {
                tracing::warn!("sandboxes run without a limit on {limit:?}: {reason}");
            }
            let warmed = local.clone();
            tasks.spawn(async move {
                if let Err(error) = warmed.warm().await {
                    tracing::warn!("failed to {error}: the first sandbox takes longer, or says why it cannot start");
                }
            });
            Ok(Arc::new(local))
        }
    }
}

/// What this machine has and lacks for sandboxes.
pub async fn probe(data_dir: &Path) -> Vec<Finding> {
    Local::probe(&folder(data_dir)).await
}
