//! The command line: what can be said, and who does it.
//!
//! Commands that need the server are clients of its HTTP interface like any other; none reaches into its files. Exit
//! codes: 0 it worked, 1 it did not, 2 it could not be tried (usage, set-up).

mod agent;
mod client;
mod context;
mod doctor;
mod env;
mod follow;
mod image;
mod private;
mod pull;
mod repo;
mod run;
mod serve;
mod session;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use client::{Client, ClientError};
pub use context::Context;

/// Runs a coding agent in a sandbox, with your repository, until your checks are green.
#[derive(Debug, Parser)]
#[command(name = "hob", version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// The server, such as http://127.0.0.1:4660; found through the data folder when absent
    #[arg(long, global = true, value_name = "URL", env = "HOB_SERVER")]
    server: Option<String>,
    /// Where the server keeps everything
    #[arg(long, global = true, value_name = "DIR", env = "HOB_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "HOB_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; the first start prints a login URL
    Serve(serve::Serve),
    /// Send one prompt and watch it, start to end
    Run(run::Run),
    /// List, read and steer sessions
    #[command(subcommand)]
    Session(session::Session),
    /// Run a command in a session's sandbox
    Exec(terminal::Exec),
    /// Open a terminal in a session's sandbox
    Shell(terminal::Shell),
    /// Show a session's change
    Diff(pull::Diff),
    /// Fetch a session's branch into the local checkout
    Pull(pull::Pull),
    /// List and install agents
    #[command(subcommand)]
    Agent(agent::Agent),
    /// List repositories
    #[command(subcommand)]
    Repo(repo::Repo),
    /// List and build what sessions start from
    #[command(subcommand)]
    Image(image::Image),
    /// Draft and check what a repository's sandboxes are made of
    #[command(subcommand)]
    Env(env::Env),
    /// Say what this machine can and cannot do, and how to mend it
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be tried: exit code 2.
    #[error("{0}")]
    SetUp(String),
    /// It was tried and failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A command of the sandbox ended so; its exit code is ours.
    #[error("the command ended with exit code {0}")]
    Exit(u8),
    /// Whoever reads our output is gone, as with `hob … | head`.
    #[error("write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// It could not be tried: `failed to …`.
    fn set_up(reason: impl std::fmt::Display) -> Self {
        Self::SetUp(format!("failed to {reason}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) if (500..600).contains(&problem.status) => Self::Failed(problem.detail),
            ClientError::Problem(problem) => Self::SetUp(problem.detail),
            other => Self::set_up(other),
        }
    }
}

/// Runs the process's command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // An error means that a provider was chosen already, which is as good.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Err(Failure::set_up(format!("start the runtime: {error}")))),
    };
    let code = report(&runtime.block_on(dispatch(cli)));
    // A thread that still reads the terminal must not keep the process.
    runtime.shutdown_background();
    code
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Serve(serve) => serve.run(&context).await,
        Command::Run(run) => run.run(&context).await,
        Command::Session(session) => session.run(&context).await,
        Command::Exec(exec) => exec.run(&context).await,
        Command::Shell(shell) => shell.run(&context).await,
        Command::Diff(diff) => diff.run(&context).await,
        Command::Pull(pull) => pull.run(&context).await,
        Command::Agent(agent) => agent.run(&context).await,
        Command::Repo(repo) => repo.run(&context).await,
        Command::Image(image) => image.run(&context).await,
        Command::Env(env) => env.run(&context).await,
        Command::Doctor(doctor) => doctor.run(&context).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hob", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn report(result: &Result<(), Failure>) -> ExitCode {
    let (code, text) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Exit(code)) => return ExitCode::from(*code),
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(error @ Failure::SetUp(_)) => (2, error.to_string()),
        Err(error) => (1, error.to_string()),
    };
    // When standard error is gone too, there is nobody left to tell.
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("hob: {text}\n").as_bytes()));
    ExitCode::from(code)
}
