//! Sandboxes as the configuration wants them.

use std::path::Path;
use std::sync::Arc;

use hob_sandbox::Provider;

use crate::config::Config;

/// Opens the provider of sandboxes, whose files lie in `DATA_DIR/sandboxes`.
///
/// # Errors
/// What this machine lacks, in words.
pub async fn open(_config: &Config, _data_dir: &Path) -> Result<Arc<dyn Provider>, String> {
    Err("no provider is linked yet".into())
}

/// What this machine can hold, for `hob doctor`.
pub async fn probe() -> Vec<crate::cli::Finding> {
    Vec::new()
}
