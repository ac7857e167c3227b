//! The gateway: one for the server, with an access for each session.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, AccessSpec, Door, OpenError};
use crate::config::{Catalogue, ConfigError, GatewayConfig};
use crate::door;
use crate::meter::Meter;
use crate::outside::Outside;
use crate::registry::{Conflict, Registry};

/// The shortest token that is accepted, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// The one way out.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The loopback address is taken, or not to be had.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The client for providers could not be made, most likely since the machine has no root certificates.
    #[error("prepare the client for model providers: {0}")]
    Client(#[source] reqwest::Error),
}

/// What every connection needs.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) proxy: Option<Url>,
    pub(crate) catalogue: Catalogue,
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) outside: Outside,
    pub(crate) client: reqwest::Client,
    pub(crate) registry: Registry,
    pub(crate) closed: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Gateway {
    /// Starts a gateway with the system's resolver and randomness, and listens on the loopback address.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be used, or an address that is taken.
    pub async fn start(config: GatewayConfig, meter: Arc<dyn Meter>) -> Result<Self, StartError> {
        Self::start_with(config, meter, Outside::system()).await
    }

    /// Starts a gateway with surroundings of the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Gateway::start`].
    pub async fn start_with(
        config: GatewayConfig,
        meter: Arc<dyn Meter>,
        outside: Outside,
    ) -> Result<Self, StartError> {
        config.check()?;
        let catalogue = Catalogue::new(&config)?;
        let proxy = config.egress.proxy_url()?;
        let client = provider_client(&config, proxy.clone()).map_err(StartError::Client)?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            config,
            proxy,
            catalogue,
            meter,
            outside,
            client,
            registry: Registry::default(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(door::serve_loopback(Arc::clone(&shared), listener));
        tracing::info!(%address, "gateway listens");
        Ok(Self { shared, address })
    }

    /// Where the model API listens for the built-in agent, such as `http://127.0.0.1:40123`.
    ///
    /// A call must carry the access's token as bearer token, `x-api-key`, `x-goog-api-key` or `?key=`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a session's access and, where the specification names one, its socket.
    ///
    /// # Errors
    ///
    /// An epoch that is not later than the session's last, a token that will not do, or a socket that cannot be made.
    pub async fn open(&self, spec: AccessSpec) -> Result<Access, OpenError> {
        let shared = &self.shared;
        if shared.closed.is_cancelled() {
            return Err(OpenError::Closed(spec.session));
        }
        let plain = spec.token.bytes().all(|byte| byte.is_ascii_graphic());
        if spec.token.len() < TOKEN_BYTES_MIN || !plain {
            return Err(OpenError::Token(spec.session));
        }
        let path = spec.unix_socket.clone();
        let door = Arc::new(Door::new(spec, shared));
        let earlier = shared.registry.enter(&door).map_err(|conflict| match conflict {
            Conflict::Token => OpenError::Token(door.session.clone()),
            Conflict::Epoch(latest) => {
                OpenError::StaleEpoch { session: door.session.clone(), epoch: door.epoch, latest }
            }
        })?;
        if let Some(earlier) = earlier {
            shared.close(&earlier);
            earlier.tasks.wait().await;
        }
        // From here on a drop of this future closes the access.
        let access = Access::new(Arc::clone(&door), Arc::clone(shared));
        if let Some(path) = path {
            let socket = Socket::bind(&path).map_err(|source| {
                shared.registry.forget(&door);
                OpenError::Socket { path, source }
            })?;
            door.tasks.spawn(door::serve_socket(Arc::clone(shared), Arc::clone(&door), socket));
        }
        shared.tasks.spawn(watch(Arc::clone(shared), door));
        Ok(access)
    }

    /// Closes every access, cuts every connection, and waits until all is quiet, up to `patience`.
    /// Returns whether it became quiet.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.shared.closed.cancel();
        self.shared.tasks.close();
        tokio::time::timeout(patience, self.shared.tasks.wait()).await.is_ok()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl Shared {
    /// Closes an access: its token is nobody's from now on, and all that passes is cut.
    pub(crate) fn close(&self, door: &Door) {
        self.registry.leave(door);
        door.closed.cancel();
        door.tasks.close();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Keeps the gateway's shutdown waiting for an access until it is quiet.
async fn watch(shared: Arc<Shared>, door: Arc<Door>) {
    door.closed.cancelled().await;
    shared.close(&door);
    door.tasks.wait().await;
}

/// A unix socket that takes its file with it when it goes.
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl Socket {
    /// Makes the socket. It is open to every user, since the sandbox's users are mapped to IDs that are not known
    /// here: the folder around it is what keeps others out, and it is made closed to listing.
    fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
        {
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
        }
        match std::fs::symlink_metadata(path) {
            // What an earlier server left behind when it was killed.
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has this name")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { listener, path: path.to_owned(), identity: (found.dev(), found.ino()) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A later access may have made its own socket by this name.
        let still_ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if still_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a gateway socket stays behind");
        }
    }
}

/// The client for providers: no redirects, since a key must not travel to where nobody meant to send it, and no
/// retries or proxies but ours.
fn provider_client(config: &GatewayConfig, proxy: Option<Url>) -> Result<reqwest::Client, reqwest::Error> {
    // An error means that the program has chosen a provider already, which is as good.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("the program's own TLS provider is used");
    }
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // Another crate of the program may switch decompression on for every client; here an answer passes as it is.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .no_proxy()
        .connect_timeout(config.limits.connect())
        .tcp_nodelay(true);
    match proxy {
        Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy)?).build(),
        None => builder.build(),
    }
}
