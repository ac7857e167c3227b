//! The server's life: the data folder's lock, the parts in order, the listener, and an orderly end.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hob_gateway::Gateway;
use hob_session::{Clock, Deps, Engine, EngineError, Ids, Observer, SystemClock, SystemIds};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, App, Defaults};
use crate::auth::origin::Hosts;
use crate::auth::{Auth, AuthError};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::wiring::{self, WiringError, agents::NamedAgents, doors, meter, sandboxes};
use crate::ws::{Acks, Hub};

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another server uses the data folder.
    #[error("use the data folder {}: the server with process ID {pid} uses it; stop that one, or choose another folder with --data-dir", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The other server, where it could be read.
        pid: String,
    },
    /// The data folder cannot be made or written to.
    #[error("use the data folder {}: {source}", folder.display())]
    DataDir {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}{}", listen_hint(source))]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The secrets cannot be kept.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The configuration cannot be carried out.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The gateway did not start.
    #[error("start the gateway: {0}")]
    Gateway(#[from] hob_gateway::StartError),
    /// The sandboxes cannot be had.
    #[error("start the sandboxes: {0}; `hob doctor` says what this machine lacks")]
    Sandboxes(String),
    /// The engine did not open.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Serving broke off.
    #[error("go on serving: {0}")]
    Serving(#[source] io::Error),
}

fn listen_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; choose another address with --listen",
        _ => "",
    }
}

/// What a client on the same machine finds in `DATA_DIR/server.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// The server's process.
    pub pid: u32,
    /// Where it listens, such as `http://127.0.0.1:4660`.
    pub url: String,
}

impl Running {
    /// The server that uses a data folder, where one does.
    pub fn find(data_dir: &Path) -> Option<Self> {
        let lock = File::open(data_dir.join("lock")).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            _ => return None,
        }
        serde_json::from_slice(&fs::read(data_dir.join("server.json")).ok()?).ok()
    }
}

/// How to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// On the configured address or not at all.
    Exactly,
    /// On any free port when the configured one is taken: for a server that finds its clients through the data folder.
    OrAnywhere,
}

/// A server that listens.
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    /// The one-time URL for a browser.
    pub login_url: String,
    app: App,
    hosts: Hosts,
    listener: TcpListener,
    measured: CancellationToken,
    shutdown_after: Duration,
    data_dir: PathBuf,
    /// Holds the data folder until the end.
    _lock: File,
}

impl Server {
    /// Starts every part, in an order in which each finds what it needs, and listens.
    ///
    /// # Errors
    /// What did not start, and what to do.
    pub async fn start(config: &Config, data_dir: PathBuf, listen: Listen) -> Result<Self, ServeError> {
        let lock = lock(&data_dir)?;
        let (auth, login) = Auth::open(&data_dir)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn Ids> = Arc::new(SystemIds);
        let metrics = Arc::new(Metrics::default());
        let tasks = TaskTracker::new();

        let (meter, measurements) = meter::queue(Arc::clone(&metrics));
        let gateway = Gateway::start(wiring::gateway_config(config)?, Arc::new(meter)).await?;
        let default_model = config.default_model().unwrap_or_default().to_owned();
        let sockets = doors::socket_folder(&data_dir);
        let doors = doors::GatewayDoors::new(gateway, sockets, default_model, (&config.egress).into());
        let deps = Deps {
            provider: sandboxes::open(config, &data_dir, &tasks).await.map_err(ServeError::Sandboxes)?,
            agents: Arc::new(NamedAgents::new(config, &data_dir, tasks.clone())),
            doors: Arc::new(doors),
            clock: Arc::clone(&clock),
            ids,
        };
        let mut engine_config = wiring::engine_config(config, &data_dir);
        engine_config.images.registries.extend(wiring::credentials(config).await?);
        engine_config.observer = Some(Arc::clone(&metrics) as Arc<dyn Observer>);
        let engine = Engine::open(engine_config, deps).await?;
        let measured = CancellationToken::new();
        tasks.spawn(measurements.record(engine.clone(), measured.clone()));

        let listener = bind(&config.server.listen, listen).await?;
        let address = listener.local_addr().map_err(ServeError::Serving)?;
        let url = format!("http://{}", reachable(address));
        let running = Running { pid: std::process::id(), url: url.clone() };
        let written = crate::auth::write_private(
            &data_dir.join("server.json"),
            &serde_json::to_vec(&running).unwrap_or_default(),
        );
        written.map_err(|source| ServeError::DataDir { folder: data_dir.clone(), source })?;
        let app = App {
            hub: Hub::new(engine.clone(), tasks.clone()),
            engine,
            acks: Arc::new(Acks::default()),
            auth: Arc::new(auth),
            clock,
            metrics,
            defaults: Arc::new(Defaults {
                agent: config.session.agent.clone(),
                model: config.default_model().map(str::to_owned),
                author: wiring::default_author(&config.owner),
            }),
            tasks,
            closing: CancellationToken::new(),
        };
        Ok(Self {
            address,
            login_url: format!("{url}/login?token={}", login.as_str()),
            app,
            hosts: Hosts::new(&config.server.hosts),
            listener,
            measured,
            shutdown_after: config.server.shutdown_after.0,
            data_dir,
            _lock: lock,
        })
    }

    /// The sessions, for a program that has the server in its own process.
    pub fn engine(&self) -> Engine {
        self.app.engine.clone()
    }

    /// Serves until `stop` is cancelled, then ends in order: no new requests, streams are closed, turns are told as
    /// interrupted, what is measured is written. Sandboxes live on.
    ///
    /// # Errors
    /// Serving broke off.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self { app, measured, listener, hosts, shutdown_after, data_dir, _lock, .. } = self;
        let router = api::router(app.clone(), hosts);
        let closing = app.closing.clone();
        let streams = closing.clone();
        let stopping = async move {
            stop.cancelled().await;
            tracing::info!("shutting down");
            // Streams have no end of their own, so they are told before the wait for open requests begins.
            streams.cancel();
        };
        let serving = axum::serve(listener, router).with_graceful_shutdown(stopping).into_future();
        let late = async {
            closing.cancelled().await;
            tokio::time::sleep(shutdown_after).await;
        };
        let served = tokio::select! {
            served = serving => served,
            () = late => {
                tracing::warn!(seconds = shutdown_after.as_secs(), "some requests did not end in time and are cut");
                Ok(())
            }
        };
        app.tasks.close();
        let in_order = async {
            app.engine.shutdown().await;
            // The doors are closed now, so no more measurements come; those that wait are written.
            measured.cancel();
            app.tasks.wait().await;
        };
        if tokio::time::timeout(shutdown_after, in_order).await.is_err() {
            tracing::warn!(seconds = shutdown_after.as_secs(), "some work did not end in time and is cut");
        }
        // A stale file would only send a client to nobody.
        drop(fs::remove_file(data_dir.join("server.json")));
        served.map_err(ServeError::Serving)
    }
}

/// Cancelled when the process is asked to end: SIGTERM or SIGINT. A second one ends it at once.
///
/// # Errors
/// The signals cannot be listened for.
pub fn stop_signals(tasks: &TaskTracker) -> io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tasks.spawn(async move {
        for count in 0.. {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            stopped.cancel();
            if count > 0 {
                std::process::exit(130);
            }
        }
    });
    Ok(stop)
}

fn lock(data_dir: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::DataDir { folder: data_dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let path = data_dir.join("lock");
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).ok().filter(|pid| !pid.trim().is_empty());
            let pid = pid.map_or("unknown".into(), |pid| pid.trim().to_owned());
            return Err(ServeError::Locked { folder: data_dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

async fn bind(address: &str, listen: Listen) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { address: address.to_owned(), source };
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && listen == Listen::OrAnywhere => {
            TcpListener::bind("127.0.0.1:0").await.map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

/// The address as a client on this machine uses it: a server on all addresses is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    match (address.ip().is_unspecified(), address.is_ipv4()) {
        (true, true) => SocketAddr::from(([127, 0, 0, 1], address.port())),
        (true, false) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    }
}
