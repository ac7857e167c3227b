//! `hob session`: what the web client does.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use futures_util::StreamExt as _;
use hob_session::{Clock as _, SystemClock};
use jiff::Timestamp;
use serde_json::json;

use super::context::{print, print_json, table};
use super::follow::{Screen, Until, follow, print_log};
use super::{Client, Context, Failure};
use crate::api::{LimitsView, PhaseTimeView, PromptAccepted, SessionPage, SessionView, SnapshotView, StatsView};
use crate::render::style::{ago, clean, counted, duration, first_line, size, thousands};
use crate::render::waiting_for_place;

#[derive(Debug, Subcommand)]
pub(super) enum Session {
    /// List sessions, the one that changed last first
    List {
        /// Only those in this state; all but archived ones when absent
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a session
    Show {
        /// The session
        id: String,
    },
    /// Show a session's log
    Events {
        /// The session
        id: String,
        /// Only events after this sequence number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        since: u64,
        /// Go on with what comes
        #[arg(long)]
        follow: bool,
    },
    /// Queue a prompt
    Prompt {
        /// The session
        id: String,
        /// What to do
        text: String,
        /// Watch its turn to the end
        #[arg(long)]
        follow: bool,
    },
    /// Stop the turn that runs
    Stop {
        /// The session
        id: String,
    },
    /// Freeze a session's files as they are now; its sandbox runs on
    Snapshot {
        /// The session
        id: String,
        /// Write them into this file, as an archive
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Answer a question of the agent, or a permission request with one of its options
    Answer {
        /// The session
        id: String,
        /// The request, as `hob session show` lists it
        request: String,
        /// The answer
        text: String,
    },
    /// Close a session for good; its log stays
    Archive {
        /// The session
        id: String,
    },
}

impl Session {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::List { state } => list(context, &client, state.as_deref()).await,
            Self::Show { id } => show(context, &client, &id).await,
            Self::Events { id, since, follow: true } => {
                follow(&client, &id, since, &Until::Archived, &mut Screen::new(context)).await.map(drop)
            }
            Self::Events { id, since, follow: false } => {
                print_log(&client, &id, since, &mut Screen::new(context)).await
            }
            Self::Prompt { id, text, follow: watch } => prompt(context, &client, &id, &text, watch).await,
            Self::Stop { id } => Ok(client.act(&format!("/api/v1/sessions/{id}/stop")).await?),
            Self::Snapshot { id, output: None } => snapshot(context, &client, &id).await,
            Self::Snapshot { id, output: Some(file) } => export(&client, &id, &file).await,
            Self::Answer { id, request, text } => answer(&client, &id, &request, &text).await,
            Self::Archive { id } => Ok(client.act(&format!("/api/v1/sessions/{id}/archive")).await?),
        }
    }
}

async fn list(context: &Context, client: &Client, state: Option<&str>) -> Result<(), Failure> {
    let mut sessions = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let mut path = "/api/v1/sessions?limit=200".to_owned();
        for (name, value) in [("state", state), ("cursor", cursor.as_deref())] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escaped(value)));
            }
        }
        let page: SessionPage = client.get(&path).await?;
        sessions.extend(page.sessions);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if context.json() {
        return print_json(&sessions);
    }
    let now_ms = SystemClock.now_ms();
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            let outcome = session.last_outcome.as_deref().unwrap_or("");
            let when = ago(now_ms.saturating_sub(session.updated_ms));
            vec![session.id.clone(), session.state.clone(), outcome.to_owned(), when, first_line(&session.title)]
        })
        .collect();
    print(&table(&rows))
}

async fn show(context: &Context, client: &Client, id: &str) -> Result<(), Failure> {
    let session: SessionView = client.get(&format!("/api/v1/sessions/{id}")).await?;
    let stats: StatsView = client.get(&format!("/api/v1/sessions/{id}/stats")).await?;
    if context.json() {
        let mut json = serde_json::to_value(&session).unwrap_or_default();
        json["stats"] = json!(stats);
        return print_json(&json);
    }
    let mut rows = vec![
        row("session", &session.id),
        row("title", &first_line(&session.title)),
        row("state", &session.state),
        row("repository", &clean(&session.repository)),
        row("agent", &format!("{} with {}", session.agent, session.model)),
        row("changed", &at(session.updated_ms)),
    ];
    rows.extend(session.place.as_ref().map(|place| row("waits", &waiting_for_place(place.position, place.of))));
    rows.extend(started(&session.phases));
    rows.extend(stats.limits.as_ref().map(|limits| row("uses", &used(&stats, limits))));
    rows.extend(stats.disk_own_bytes.map(|own| row("keeps", &kept(own, stats.disk_shared_bytes.unwrap_or_default()))));
    if let Some(outcome) = &session.last_outcome {
        rows.push(row("last turn", outcome));
    }
    if let (Some(branch), Some(commit)) = (&session.branch, &session.commit) {
        rows.push(row("branch", &format!("{} at {}", clean(branch), clean(commit))));
    }
    if let Some(change) = &session.change {
        let lines =
            format!("{}, +{} -{}", counted(change.files_changed.into(), "file"), change.insertions, change.deletions);
        rows.push(row("change", &lines));
    }
    let usage = &session.usage;
    let tokens = format!("{} tokens in, {} out", thousands(usage.input_tokens), thousands(usage.output_tokens));
    rows.push(row("models", &format!("{}, {tokens}", counted(usage.calls, "call"))));
    rows.extend(session.services.iter().map(|service| {
        let detail = service.detail.as_deref().map(|detail| format!(": {}", first_line(detail))).unwrap_or_default();
        row("service", &format!("{} {}{detail}", clean(&service.name), service.status))
    }));
    rows.extend(session.queue.iter().map(|queued| row("waits", &first_line(&queued.text))));
    rows.extend(session.waiting_for.iter().map(|request| row("asks", request)));
    print(&table(&rows))
}

/// How long each phase of the last start took.
fn started(phases: &[PhaseTimeView]) -> Option<Vec<String>> {
    let phases: Vec<_> =
        phases.iter().map(|phase| format!("{} {}", clean(&phase.name), duration(phase.elapsed_ms))).collect();
    (!phases.is_empty()).then(|| row("start", &phases.join(", ")))
}

/// What lies on disk for a session.
fn kept(own: u64, shared: u64) -> String {
    format!("{} of its own, {} that others may share", size(own), size(shared))
}

/// What a sandbox uses of what it may.
fn used(stats: &StatsView, limits: &LimitsView) -> String {
    let cores = |millicores: u64| format!("{}.{:02}", millicores / 1_000, millicores % 1_000 / 10);
    let mib = |bytes: u64| format!("{} MiB", thousands(bytes >> 20));
    let parts = [
        stats.cpu_millicores.map(|now| format!("{} of {} cores", cores(now), cores(limits.cpu_millicores.into()))),
        stats.memory_bytes.map(|now| format!("memory {} of {}", mib(now), mib(limits.memory_bytes))),
        stats.disk_bytes.map(|now| format!("disk {} of {}", mib(now), mib(limits.disk_bytes))),
        stats.processes.map(|now| format!("{} of {} processes", thousands(now), thousands(limits.processes.into()))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

async fn prompt(context: &Context, client: &Client, id: &str, text: &str, watch: bool) -> Result<(), Failure> {
    let session: SessionView = client.get(&format!("/api/v1/sessions/{id}")).await?;
    let accepted: PromptAccepted =
        client.post(&format!("/api/v1/sessions/{id}/prompts"), &json!({ "text": text })).await?;
    if watch {
        let until = Until::TurnOf(accepted.prompt_id);
        let outcome = follow(client, id, session.seq, &until, &mut Screen::new(context)).await?;
        return match outcome {
            Some(hob_session::event::TurnOutcome::Done) => Ok(()),
            _ => Err(Failure::Exit(1)),
        };
    }
    match (context.json(), accepted.position) {
        (true, _) => print_json(&accepted),
        (false, 0) => print("queued; it starts now\n"),
        (false, position) => print(&format!("queued after {position} other\n")),
    }
}

async fn snapshot(context: &Context, client: &Client, id: &str) -> Result<(), Failure> {
    let taken: SnapshotView = client.post(&format!("/api/v1/sessions/{id}/snapshot"), &json!({})).await?;
    if context.json() {
        return print_json(&taken);
    }
    let files = format!("{} in {}", size(taken.bytes), counted(taken.entries, "file"));
    match taken.paused_ms {
        Some(paused_ms) => print(&format!("frozen: {files}; the sandbox stood still for {paused_ms} ms\n")),
        None => print(&format!("nothing was written since the last snapshot: {files}\n")),
    }
}

/// Writes a snapshot beside its place and moves it there, so that one that broke off is never taken for a whole.
async fn export(client: &Client, id: &str, file: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("failed to write {}: {error}", file.display()));
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let mut pieces = client.pieces(&format!("/api/v1/sessions/{id}/snapshot")).await?;
    let mut out = std::fs::File::create(&part).map_err(failed)?;
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?).map_err(failed)?;
    }
    out.sync_all().and_then(|()| std::fs::rename(&part, file)).map_err(failed)?;
    print(&format!("written to {}\n", file.display()))
}

/// Permission requests and questions share one list of IDs, so the one is tried and then the other.
async fn answer(client: &Client, id: &str, request: &str, text: &str) -> Result<(), Failure> {
    let base = format!("/api/v1/sessions/{id}");
    let request = escaped(request);
    let permission = format!("{base}/permissions/{request}");
    match client.send_json(&permission, &json!({ "option": text })).await {
        Err(super::ClientError::Problem(problem)) if problem.status == 404 => {}
        result => return Ok(result?),
    }
    Ok(client.send_json(&format!("{base}/questions/{request}"), &json!({ "text": text })).await?)
}

/// A value for a path or a query (RFC 3986 §2.3).
pub(super) fn escaped(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(escape).collect()
}

/// A time, to the second, in UTC.
fn at(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_second(ms / 1_000).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_value() {
        assert_eq!(escaped("a/b&c=ü"), "a%2Fb%26c%3D%C3%BC");
        assert_eq!(at(1_795_216_270_971), "2026-11-20T23:11:10Z");
    }
}
