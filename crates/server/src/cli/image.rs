//! `hob image`: what sessions start from, and how it was made.

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use hob_session::{Clock as _, SystemClock};

use super::context::{print, print_json, remark, table};
use super::run::repository;
use super::session::escaped;
use super::{Client, Context, Failure, private};
use crate::api::{BuildImage, ImageList, ImageView};
use crate::render::style::{ago, clean, duration, first_line, thousands};

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// List images, the oldest first
    List {
        /// Only those of this repository
        #[arg(long, value_name = "PATH_OR_URL")]
        repo: Option<String>,
    },
    /// Show an image
    Show {
        /// The image
        id: String,
    },
    /// Build the image of a branch, and watch it
    Build(Build),
    /// Show how an image was made
    Log {
        /// The image
        id: String,
        /// Go on with what comes
        #[arg(long)]
        follow: bool,
    },
    /// Remove an image; sessions that started from it keep what they need of it
    Remove {
        /// The image
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Build {
    /// A path or a URL; the checkout around the current folder when absent
    #[arg(long, value_name = "PATH_OR_URL")]
    repo: Option<String>,
    /// The branch, tag or commit; the default branch when absent
    #[arg(long)]
    base: Option<String>,
    /// Build everything anew, whatever is there already
    #[arg(long)]
    fresh: bool,
    /// Run the repository's checks in it when it is there
    #[arg(long)]
    check: bool,
    /// Do not wait for it
    #[arg(long)]
    detach: bool,
}

impl Image {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Self::Build(build) = self {
            return build.run(context).await;
        }
        let client = context.client()?;
        match self {
            Self::List { repo } => list(context, &client, repo.as_deref()).await,
            Self::Show { id } => show(context, &client.get(&path(&id)).await?),
            Self::Log { id, follow } => log(&client, &id, follow).await,
            Self::Remove { id } => Ok(client.delete(&path(&id)).await?),
            Self::Build(_) => Ok(()),
        }
    }
}

impl Build {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let repository = repository(self.repo.as_deref())?;
        let order = BuildImage { repository, base: self.base, fresh: self.fresh, check: self.check, environment: None };
        let client = private::client(context).await?;
        if self.detach {
            let image: ImageView = client.post("/api/v1/images", &order).await?;
            return if context.json() { print_json(&image) } else { print(&format!("{}\n", image.id)) };
        }
        watch(context, &client, &order).await
    }
}

/// Builds an image, shows its log as it comes, and fails where it does or one of its checks is red.
pub(super) async fn watch(context: &Context, client: &Client, order: &BuildImage) -> Result<(), Failure> {
    let image: ImageView = client.post("/api/v1/images", order).await?;
    if context.json() {
        wait(client, &image.id).await?;
    } else {
        remark(&format!("building image {}", image.id));
        log(client, &image.id, true).await?;
    }
    let built: ImageView = client.get(&path(&image.id)).await?;
    show(context, &built)?;
    let is_green = built.checks.iter().all(|check| check.exit_code == 0);
    if built.state == "ready" && is_green { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes.div_ceil(1 << 10)) } else { format!("{} MiB", thousands(bytes >> 20)) }
}

fn path(id: &str) -> String {
    format!("/api/v1/images/{}", escaped(id))
}

async fn list(context: &Context, client: &Client, repository: Option<&str>) -> Result<(), Failure> {
    let query = repository.map(|name| format!("?repository={}", escaped(name))).unwrap_or_default();
    let list: ImageList = client.get(&format!("/api/v1/images{query}")).await?;
    if context.json() {
        return print_json(&list.images);
    }
    let now_ms = SystemClock.now_ms();
    let rows: Vec<_> = list.images.iter().map(|image| row(image, now_ms)).collect();
    print(&table(&rows))
}

fn row(image: &ImageView, now_ms: u64) -> Vec<String> {
    let what = match &image.base {
        Some(base) => format!("{} {}", clean(&image.repository), clean(base)),
        None => clean(&image.repository),
    };
    let took = image.ended_ms.map(|ended_ms| duration(ended_ms.saturating_sub(image.begun_ms))).unwrap_or_default();
    let commit = image.commit.get(..10).unwrap_or(&image.commit).to_owned();
    let when = ago(now_ms.saturating_sub(image.begun_ms));
    let reason = image.reason.as_deref().map(first_line).unwrap_or_default();
    let state = if image.trial { format!("{} (trial)", image.state) } else { image.state.clone() };
    vec![image.id.clone(), state, when, took, commit, what, reason]
}

fn show(context: &Context, image: &ImageView) -> Result<(), Failure> {
    if context.json() {
        return print_json(image);
    }
    let line = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        line("image", image.id.clone()),
        line("state", image.state.clone()),
        line("repository", clean(&image.repository)),
        line("commit", clean(&image.commit)),
    ];
    rows.extend(image.base.as_ref().map(|base| line("base", clean(base))));
    rows.extend(image.reason.as_ref().map(|reason| line("failed", first_line(reason))));
    let stages = image.stages.iter().map(|stage| match stage.reused {
        true => format!("{} there", stage.name),
        false => format!("{} {}", stage.name, duration(stage.elapsed_ms)),
    });
    rows.push(line("steps", stages.collect::<Vec<_>>().join(", ")));
    rows.push(line("size", size(image.bytes)));
    rows.extend(image.checks.iter().map(|check| {
        let how = if check.exit_code == 0 { "green".to_owned() } else { format!("red, exit code {}", check.exit_code) };
        line("check", format!("{} {how} in {}", clean(&check.name), duration(check.elapsed_ms)))
    }));
    rows.extend(image.notes.iter().map(|note| line("note", first_line(note))));
    print(&table(&rows))
}

/// Prints a log. A command that says nothing for long breaks the connection, and the log goes on where it was.
async fn log(client: &Client, id: &str, follow: bool) -> Result<(), Failure> {
    let mut lines = Lines::default();
    let mut from = 0;
    loop {
        let mut pieces = client.pieces(&format!("{}/log?follow={follow}&from={from}", path(id))).await?;
        let mut broken = false;
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else {
                broken = true;
                break;
            };
            from += piece.len();
            print(&lines.take(&piece))?;
        }
        if !(broken && follow) {
            return print(&lines.end());
        }
    }
}

/// Waits until an image is built or has failed.
async fn wait(client: &Client, id: &str) -> Result<(), Failure> {
    let mut from = 0;
    loop {
        let mut pieces = client.pieces(&format!("{}/log?follow=true&from={from}", path(id))).await?;
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => from += piece.len(),
                Some(Err(_)) => break,
                None => return Ok(()),
            }
        }
    }
}

/// Cuts what comes in pieces into whole lines, and leaves out what a terminal would obey.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, piece: &[u8]) -> String {
        self.rest.extend_from_slice(piece);
        let whole = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        shown(&lines)
    }

    fn end(&mut self) -> String {
        shown(&std::mem::take(&mut self.rest))
    }
}

/// Lines as a terminal would leave them: of what a progress bar wrote over itself, the last.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let last = |line: &str| {
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        format!("{}{end}", clean(text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default()))
    };
    text.split_inclusive('\n').map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_whole_and_plain() {
        let mut lines = Lines::default();
        assert_eq!(lines.take("a\x1b[31m gr\u{fc}".as_bytes().split_last().unwrap().1), "");
        assert_eq!(lines.take(b"\xbcn\r\n 5%\r10%\r\nrest"), "a[31m gr\u{fc}n\n10%\n");
        assert_eq!(lines.end(), "rest");
    }
}
