//! `hob serve`.

use std::io::IsTerminal as _;

use clap::Args;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use super::context::{print, remark};
use super::{Context, Failure};
use crate::serve::{Listen, Server, stop_signals};
use crate::wiring::NO_MODEL;

/// What is logged when `HOB_LOG` does not say: our own steps, and what others warn of. The model client warns of every
/// answer that is no text.
const LOG: &str = "warn,hob=info,genai=error";

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address and port; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Serve only clients that find the server through the data folder: take another port when the own one is taken
    #[arg(long, hide = true)]
    private: bool,
}

impl Serve {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let filter = EnvFilter::try_from_env("HOB_LOG").unwrap_or_else(|_| EnvFilter::new(LOG));
        let ansi = std::io::stderr().is_terminal() && context.environment.get("NO_COLOR").is_none();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
        let mut config = context.config()?;
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        let tasks = TaskTracker::new();
        let stop = stop_signals(&tasks).map_err(|error| Failure::set_up(format!("listen for signals: {error}")))?;
        let listen = if self.private { Listen::OrAnywhere } else { Listen::Exactly };
        let server = Server::start(&config, context.data_dir()?, listen).await.map_err(Failure::set_up)?;
        if config.models.is_empty() {
            remark(&format!("hob: {NO_MODEL}"));
        }
        if !self.private {
            print(&format!("Hob listens on http://{}\nSign in once with {}\n", server.address, server.login_url))?;
        }
        server.run(stop).await.map_err(|error| Failure::Failed(format!("failed to {error}")))
    }
}
