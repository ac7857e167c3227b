//! `hob run`: one prompt, start to end.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use hob_session::event::TurnOutcome;
use http::StatusCode;
use tokio::signal::unix::{SignalKind, signal};

use super::client::ClientError;
use super::context::{print, print_json, remark};
use super::follow::{Screen, Until, follow};
use super::{Client, Context, Failure, private};
use crate::api::{BODY_BYTES_MAX, CreateSession, SessionCreated, SessionView, Typing};
use crate::git;

/// How often the server is told that somebody still types.
const STILL_TYPING: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The repository: a path or a URL; the checkout around the current folder when absent
    #[arg(long, value_name = "PATH-or-URL")]
    repo: Option<String>,
    /// The branch, tag or commit that work starts from
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// The agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The model
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// How many sessions try it side by side
    #[arg(long, value_name = "N", default_value_t = 1)]
    attempts: u32,
    /// Start it, print the session's ID and leave
    #[arg(long)]
    detach: bool,
    /// What to do; - reads it from standard input. On a terminal it is asked for when absent
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
}

impl Run {
    /// A prompt for a checkout, with everything else as it is when nobody says.
    pub(super) fn on(checkout: &Path, prompt: &str) -> Self {
        let repo = Some(checkout.display().to_string());
        let prompt = prompt.to_owned();
        Self { repo, base: None, agent: None, model: None, attempts: 1, detach: false, prompt: Some(prompt) }
    }

    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let repository = repository(self.repo.as_deref())?;
        let (client, prompt) = match self.prompt {
            Some(argument) => {
                let prompt = prompt(argument)?;
                (private::client(context).await?, prompt)
            }
            None if std::io::stdin().is_terminal() => {
                let client = private::client(context).await?;
                let (base, agent, model) = (self.base.clone(), self.agent.clone(), self.model.clone());
                let typing = Typing { repository: repository.clone(), base, agent, model };
                let prompt = typed(&client, &typing).await?;
                (client, prompt)
            }
            None => return Err(Failure::set_up("learn what to do: give PROMPT, or - to read it from standard input")),
        };
        let request = CreateSession {
            repository,
            base: self.base,
            agent: self.agent,
            model: self.model,
            prompt: Some(prompt),
            attempts: (self.attempts != 1).then_some(self.attempts),
            ..CreateSession::default()
        };
        let created: SessionCreated = client.post("/api/v1/sessions", &request).await.map_err(as_set_up)?;
        let Some(prompt) = &created.prompt else {
            return Err(Failure::Failed("the server made a session without the prompt".into()));
        };
        if self.detach {
            return if context.json() { print_json(&created) } else { print(&format!("{}\n", created.id)) };
        }
        let stops = stop_at_interrupt(&client, &created.id);
        let mut screen = Screen::new(context);
        let until = Until::TurnOf(prompt.prompt_id.clone());
        let outcome = tokio::select! {
            outcome = follow(&client, &created.id, 0, &until, &mut screen) => outcome?,
            () = stops => {
                screen.finish()?;
                remark(&format!("left; the session goes on: hob session show {}", created.id));
                return Err(Failure::Exit(1));
            }
        };
        let session: SessionView = client.get(&format!("/api/v1/sessions/{}", created.id)).await?;
        if !context.json() {
            print(&next_steps(&session))?;
        }
        match outcome {
            Some(TurnOutcome::Done) => Ok(()),
            _ => Err(Failure::Exit(1)),
        }
    }
}

/// The prompt's words: `-` stands for standard input, since an argument has at most 128 KiB (execve(2)).
fn prompt(argument: String) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut bytes = Vec::new();
    // One byte more than the server takes is enough for it to say so.
    let limit = BODY_BYTES_MAX as u64;
    let read = std::io::Read::take(std::io::stdin().lock(), limit).read_to_end(&mut bytes);
    read.map_err(|error| Failure::set_up(format!("read the prompt from standard input: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::set_up("read the prompt from standard input: it is not UTF-8"))?;
    match text.trim_end() {
        "" => Err(Failure::set_up("read the prompt from standard input: it is empty")),
        text => Ok(text.to_owned()),
    }
}

/// The prompt as somebody types it on the terminal, while a sandbox is made warm for it.
async fn typed(client: &Client, typing: &Typing) -> Result<String, Failure> {
    remark("What is to be done? Ctrl-D on an empty line sends it.");
    let mut reading = tokio::task::spawn_blocking(|| prompt("-".to_owned()));
    loop {
        // What is wrong with the repository is better said before a long prompt is written than after it.
        client.send_json("/api/v1/typing", typing).await.map_err(as_set_up)?;
        tokio::select! {
            read = &mut reading => return read.map_err(|error| Failure::Failed(error.to_string()))?,
            () = tokio::time::sleep(STILL_TYPING) => {}
        }
    }
}

/// A refusal of the request is a matter of usage or set-up; trouble of the server is not.
fn as_set_up(error: ClientError) -> Failure {
    match error {
        ClientError::Problem(problem)
            if StatusCode::from_u16(problem.status).is_ok_and(|status| status.is_client_error()) =>
        {
            Failure::SetUp(problem.detail)
        }
        other => other.into(),
    }
}

/// The repository as the server is told it: an absolute path, or a URL as it is.
pub(super) fn repository(named: Option<&str>) -> Result<String, Failure> {
    let here = Path::new(".");
    match named {
        Some(url) if url.contains("://") || is_scp_like(url) => Ok(url.to_owned()),
        Some(path) => git::top_level(Path::new(path)).map_or_else(
            // A bare repository has no checkout; the server says what is wrong with anything else.
            || std::path::absolute(path).map(|path| path.display().to_string()).map_err(Failure::set_up),
            Ok,
        ),
        None => git::top_level(here).ok_or_else(|| {
            Failure::set_up("find a checkout around the current folder; go into one, or name it with --repo")
        }),
    }
}

/// `user@host:path`, as git takes it.
fn is_scp_like(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'))
}

/// The first Ctrl-C stops the turn and goes on watching it end; the second one leaves.
async fn stop_at_interrupt(client: &Client, session: &str) {
    // One listener for both, so that the second is heard while the first is being carried out.
    let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    interrupts.recv().await;
    remark("\nstopping the turn; press Ctrl-C again to leave");
    let stop = async {
        if let Err(error) = client.act(&format!("/api/v1/sessions/{session}/stop")).await {
            remark(&format!("hob: failed to stop the turn: {error}"));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = interrupts.recv() => {}
        () = stop => {}
    }
}

fn next_steps(session: &SessionView) -> String {
    let id = &session.id;
    let mut text = String::from("\nnext:\n");
    if session.commit.is_some() {
        text.push_str(&format!("  hob diff {id}\n  hob pull {id}\n"));
    }
    text.push_str(&format!("  hob session prompt {id} \"…\"\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_left_as_they_are() {
        for url in ["https://example.org/a.git", "git@example.org:a/b.git", "file:///srv/a.git"] {
            assert_eq!(repository(Some(url)).unwrap(), url);
        }
    }

    #[test]
    fn a_path_becomes_absolute() {
        let dir = tempfile::tempdir().unwrap();
        assert!(git::run(Some(dir.path()), &["init", "-q"]).unwrap().status.success());
        let inside = dir.path().join("src");
        std::fs::create_dir(&inside).unwrap();
        let top = dir.path().canonicalize().unwrap();
        assert_eq!(repository(inside.to_str()).unwrap(), top.to_str().unwrap());
        assert!(repository(Some("nowhere/at/all")).unwrap().starts_with('/'));
    }
}
