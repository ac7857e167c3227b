//! Brings a turn's change home: a commit in the person's name, out of the sandbox, pushed where that is wanted, with
//! the evidence beside it.

use bytes::Bytes;
use hob_sandbox::Sandbox;

use super::{TurnError, TurnResult, Work, closing};
use crate::checks::clip;
use crate::checks::rounds::GiveUp;
use crate::config::Push;
use crate::event::{EventKind, TurnOutcome};
use crate::evidence::{self, Evidence};
use crate::git::inside::{self, NewCommit};
use crate::git::{Expected, PushOutcome};

/// The longest subject of a commit, in characters, as git's own tools fold it.
const SUBJECT_CHARS_MAX: usize = 72;

impl Work<'_> {
    /// Commits the tree that the checks ran on, takes the commit out of the sandbox, and tells.
    pub(super) async fn deliver(&self, tree: &str, gave_up: Option<GiveUp>) -> Result<TurnResult, TurnError> {
        let outcome = if gave_up.is_some() { TurnOutcome::ChecksFailed } else { TurnOutcome::Done };
        let sandbox = self.context.sandbox.ready().await.map_err(TurnError::NoSandbox)?;
        let expected = self.commit(&sandbox, tree).await?;
        let bundle = inside::bundle(&sandbox, &expected.commit, &expected.parent).await?;
        self.context.mirror.receive(&bundle, &self.context.branch, &expected).await?;
        self.tell_commit(&expected).await?;
        self.push(outcome).await?;
        let evidence = self.evidence(outcome, &expected.commit, gave_up).await;
        self.keep(&evidence).await?;
        Ok(closing::changed(&evidence, self.end.as_ref()))
    }

    async fn commit(&self, sandbox: &Sandbox, tree: &str) -> Result<Expected, TurnError> {
        let new = NewCommit {
            parent: self.context.parent.clone(),
            tree: tree.to_owned(),
            author: self.context.prompt.author.clone(),
            co_authors: self.context.co_authors.clone(),
            message: self.message(),
            at_ms: self.context.clock.now_ms(),
        };
        Ok(inside::commit(sandbox, &new).await?)
    }

    /// Subject from the prompt, then what the agent says it did, then where it comes from.
    fn message(&self) -> String {
        let summary = self.end.as_ref().and_then(|end| end.summary.as_deref()).unwrap_or_default().trim();
        let mut message = subject(&self.context.prompt.text);
        if !summary.is_empty() {
            message.push_str("\n\n");
            message.push_str(&clip(summary, 4_096));
        }
        let checks: Vec<String> = self.rounds.last().map_or_else(Vec::new, |round| {
            round.runs.iter().map(|run| format!("`{}` exit {}", run.command, run.exit_code)).collect()
        });
        if !checks.is_empty() {
            message.push_str(&format!("\n\nChecked with {}.", checks.join(", ")));
        }
        message.push_str(&format!("\n\nHob-session: {}", self.context.session));
        message
    }

    async fn tell_commit(&self, expected: &Expected) -> Result<(), TurnError> {
        let stat = self.context.mirror.stat(&self.context.base.commit, &expected.commit).await?;
        let committed = EventKind::Committed {
            commit: expected.commit.clone(),
            branch: self.context.branch.clone(),
            subject: subject(&self.context.prompt.text),
            author: self.context.prompt.author.clone(),
            co_authors: self.context.co_authors.clone(),
            files_changed: stat.files_changed,
            insertions: stat.insertions,
            deletions: stat.deletions,
        };
        Ok(self.journal.append(vec![committed]).await?)
    }

    /// Pushes where that is wanted. A remote that refuses is told; the branch stays in the mirror.
    async fn push(&self, outcome: TurnOutcome) -> Result<(), TurnError> {
        let branch = self.context.branch.clone();
        let not_pushed =
            |reason: String| EventKind::Pushed { branch: branch.clone(), remote: None, reason: Some(reason) };
        let told = if self.context.config.push == Push::Never {
            not_pushed("pushing is switched off in hob.toml; fetch the branch with `hob pull`".to_owned())
        } else if outcome != TurnOutcome::Done {
            not_pushed("the checks are red; fetch the branch with `hob pull`".to_owned())
        } else {
            match self.context.mirror.push(&branch, self.context.config.timeouts.push).await {
                Ok(PushOutcome::Pushed { remote }) => {
                    EventKind::Pushed { branch: branch.clone(), remote: Some(remote), reason: None }
                }
                Ok(PushOutcome::NotPushed { reason }) => not_pushed(reason),
                Err(error) => not_pushed(format!("failed to {error}")),
            }
        };
        Ok(self.journal.append(vec![told]).await?)
    }

    async fn evidence(&self, outcome: TurnOutcome, commit: &str, gave_up: Option<GiveUp>) -> Evidence {
        let usage = self.journal.usage().await;
        let context = &self.context;
        Evidence {
            format: evidence::FORMAT,
            session: context.session.to_string(),
            turn: context.turn_id.clone(),
            repository: context.repository.clone(),
            base: context.base.commit.clone(),
            commit: Some(commit.to_owned()),
            branch: Some(context.branch.clone()),
            agent: context.agent.clone(),
            model: context.model.clone(),
            outcome,
            rounds: self.round(),
            gave_up: gave_up.map(|reason| reason.to_string()),
            checks: evidence::checks(&context.base_runs, self.rounds.last().map_or(&[], |round| &round.runs)),
            usage: evidence::Usage {
                model_calls: usage.calls,
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cost_micro_usd: (usage.unpriced_calls == 0).then_some(usage.cost_micro_usd),
            },
            started_at_ms: self.started_at_ms,
            ended_at_ms: context.clock.now_ms(),
        }
    }

    async fn keep(&self, evidence: &Evidence) -> Result<(), TurnError> {
        match evidence.to_json() {
            Ok(json) => {
                self.journal.artifact("evidence", "evidence.json", "application/json", Bytes::from(json)).await?;
            }
            Err(error) => tracing::error!(session.id = %self.context.session, "evidence is no JSON: {error}"),
        }
        let markdown = Bytes::from(evidence.to_markdown());
        self.journal.artifact("evidence", "evidence.md", "text/markdown", markdown).await?;
        Ok(())
    }
}

/// A commit's first line out of a prompt: its first line with words in it, cut at a word.
fn subject(prompt: &str) -> String {
    let line = prompt.lines().map(str::trim).find(|line| line.chars().any(char::is_alphanumeric));
    let line = line.unwrap_or("Change the code").trim_start_matches(['#', '-', '*', '>', ' ']).trim_end_matches('.');
    if line.chars().count() <= SUBJECT_CHARS_MAX {
        return line.to_owned();
    }
    let cut: String = line.chars().take(SUBJECT_CHARS_MAX - 1).collect();
    let words = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    format!("{}…", words.trim_end_matches([',', ';', ':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[track_caller]
    fn check(prompt: &str, expected: &str) {
        assert_eq!(subject(prompt), expected);
    }

    #[test]
    fn a_subject_is_the_prompts_first_line_with_words() {
        check("Fix the parser.\n\nIt fails on empty input.", "Fix the parser");
        check("\n  \n## Fix it\n", "Fix it");
        check("…", "Change the code");
        check(
            "When a header appears twice the second value silently replaces the first, and it should be joined",
            "When a header appears twice the second value silently replaces the…",
        );
    }
}
