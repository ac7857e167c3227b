//! `scripted-model`: the stand-in for a model as a program of its own, for the demo without a key.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to whoever starts it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hob_scripted_model::{HEADER_VALUE, ScriptedModel, Scripts};
use tokio::signal::unix::{SignalKind, signal};

/// Plays a script over the wire formats of OpenAI, Anthropic and Gemini. It is no real model.
///
/// Ends on SIGINT or SIGTERM: with 0 when every request was as it should be, with 3 when one was not.
#[derive(Debug, Parser)]
struct Arguments {
    /// The scripts, as JSON.
    #[arg(long)]
    script: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            violations.iter().for_each(|violation| eprintln!("scripted-model: {violation}"));
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("scripted-model: failed to {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<Vec<String>, String> {
    let scripts = Scripts::from_file(&arguments.script).map_err(|error| error.to_string())?;
    let listening = ScriptedModel::start_on(arguments.listen, scripts).await;
    let running = listening.map_err(|error| format!("listen on {}: {error}", arguments.listen))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("wait for SIGTERM: {error}"))?;
    eprintln!("scripted-model: {HEADER_VALUE}. It plays {} and thinks nothing.", arguments.script.display());
    println!("{}", running.base_url());
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| format!("wait for SIGINT: {error}"))?,
        _ = terminate.recv() => {}
    }
    let violations = running.violations();
    running.shutdown().await;
    Ok(violations)
}
