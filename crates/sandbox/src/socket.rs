//! Unix sockets in a sandbox's folder, and the way from there to the gateway.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of one sandbox to the gateway at once.
const RELAYS_MAX: usize = 256;

/// Binds a socket in a folder, in place of one that an earlier owner left.
///
/// Through the open folder, since a socket's path may be only 108 bytes long; beside and moved, so that whoever finds
/// it can connect.
pub(crate) fn bind(folder: &Path, name: &str) -> std::io::Result<UnixListener> {
    let open = std::fs::File::open(folder)?;
    let folder = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, folder.join(name))?;
    Ok(listener)
}

/// Joins every connection to `listener` to a new one to the gateway's socket.
///
/// The gateway's own socket is not put into the sandbox: it belongs to the host's user, and it is another file after
/// the gateway has restarted.
pub(crate) async fn relay(listener: UnixListener, gateway: PathBuf, stop: CancellationToken, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(RELAYS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let inside = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            () = stop.cancelled() => return,
        };
        let Ok(mut inside) = inside else {
            // Out of descriptors: others give some back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (gateway, stop) = (gateway.clone(), stop.clone());
        tasks.spawn(async move {
            match UnixStream::connect(&gateway).await {
                Ok(mut outside) => tokio::select! {
                    // How a connection ends is its two ends' matter.
                    _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                    () = stop.cancelled() => {}
                },
                Err(error) => tracing::warn!("failed to reach the gateway at {}: {error}", gateway.display()),
            }
            drop(permit);
        });
    }
}
