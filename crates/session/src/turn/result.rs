//! What a turn leaves behind: the commit on the session's branch, outside the sandbox, and the evidence for it.

use hob_agent::{Author, TurnEnd};
use hob_sandbox::Sandbox;

use super::proof::Proof;
use super::{Verdict, Work};
use crate::artifacts::NewArtifact;
use crate::checks::clip;
use crate::checks::rounds::Round;
use crate::config::Push;
use crate::event::{EventKind, TurnOutcome};
use crate::evidence::{self, CheckEvidence, CheckOutcome, Evidence};
use crate::fold::title_of;
use crate::git::PushOutcome;
use crate::git::inside::{self, NewCommit};
use crate::log::Beside;
use crate::requests::{Artifact, Usage};

/// Characters of a commit's first line (git's own advice is 50, forges cut at 72).
const SUBJECT_BYTES_MAX: usize = 72;

impl Work {
    /// Commits the change, takes it out, and keeps the evidence. Gives what the closing message says of it.
    pub(super) async fn keep_result(
        &self,
        sandbox: &Sandbox,
        proof: &Proof<'_>,
        rounds: &[Round],
        verdict: &Verdict,
        end: &TurnEnd,
    ) -> Result<String, String> {
        let Some(last) = rounds.last() else { return Ok(String::new()) };
        let checks = evidence::checks(proof.base_runs(), &last.runs);
        if last.tree == proof.parent_tree() {
            return Ok("The change was taken back; there is nothing to commit.".to_owned());
        }
        let message = self.commit_message(end, &checks);
        let (branch, commit) = self.commit(sandbox, proof, last, &message).await?;
        self.push(proof, &branch, verdict).await?;
        self.keep_evidence(proof, rounds, verdict, checks.clone(), (&branch, &commit)).await?;
        Ok(closing_note(&branch, &commit, &checks, verdict))
    }

    async fn commit(
        &self,
        sandbox: &Sandbox,
        proof: &Proof<'_>,
        last: &Round,
        message: &str,
    ) -> Result<(String, String), String> {
        let failed = |error: crate::git::GitError| format!("failed to {error}");
        let author = self.turn.prompt.author.clone();
        let (branch, participants) =
            self.owned.log.read(|state| (state.summary.branch.clone(), state.summary.participants.clone())).await;
        let branch = branch.ok_or("the session's branch has no name; its sandbox never started in order")?;
        let co_authors: Vec<Author> = participants.into_iter().filter(|person| *person != author).collect();
        let new = NewCommit {
            parent: proof.parent.clone(),
            tree: last.tree.clone(),
            author: author.clone(),
            co_authors: co_authors.clone(),
            message: message.to_owned(),
            at_ms: self.owned.house.deps.clock.now_ms(),
        };
        let take_out = async {
            let expected = inside::commit(sandbox, &new).await.map_err(failed)?;
            let bundle = inside::bundle(sandbox, &expected.commit, &expected.parent).await.map_err(failed)?;
            proof.mirror.receive(&bundle, &expected).await.map_err(failed)?;
            proof.mirror.stat(&proof.base, &expected.commit).await.map_err(failed).map(|stat| (expected.commit, stat))
        };
        let limit = self.owned.house.config.timeouts.commit;
        let (commit, stat) = tokio::time::timeout(limit, take_out)
            .await
            .map_err(|_| format!("failed to take the change out of the sandbox within {} s", limit.as_secs()))??;
        let committed = EventKind::Committed {
            commit: commit.clone(),
            branch: branch.clone(),
            subject: message.lines().next().unwrap_or_default().to_owned(),
            author,
            co_authors,
            files_changed: stat.files_changed,
            insertions: stat.insertions,
            deletions: stat.deletions,
        };
        self.owned.record(vec![committed]).await.map_err(|error| format!("failed to {error}"))?;
        proof.mirror.put_branch(&branch, Some(&commit)).await.map_err(failed)?;
        Ok((branch, commit))
    }

    /// Pushes the branch where that is wanted. A push that fails does not fail the turn: the commit is safe, and the
    /// log says what to do.
    async fn push(&self, proof: &Proof<'_>, branch: &str, verdict: &Verdict) -> Result<(), String> {
        let config = &self.owned.house.config;
        let (remote, reason) = if config.push == Push::Never {
            (None, Some("this server does not push; fetch the branch with hob pull".to_owned()))
        } else if verdict.outcome != TurnOutcome::Done {
            (None, Some("checks are red; fetch the branch with hob pull to look at it".to_owned()))
        } else {
            match proof.mirror.push(branch, config.timeouts.push).await {
                Ok(PushOutcome::Pushed { remote }) => (Some(remote), None),
                Ok(PushOutcome::NotPushed { reason }) => (None, Some(reason)),
                Err(error) => (None, Some(format!("failed to {error}"))),
            }
        };
        let pushed = EventKind::Pushed { branch: branch.to_owned(), remote, reason };
        self.owned.record(vec![pushed]).await.map_err(|error| format!("failed to {error}"))
    }

    async fn keep_evidence(
        &self,
        proof: &Proof<'_>,
        rounds: &[Round],
        verdict: &Verdict,
        checks: Vec<CheckEvidence>,
        (branch, commit): (&str, &str),
    ) -> Result<(), String> {
        let house = &self.owned.house;
        let now_ms = house.deps.clock.now_ms();
        let summary = self.owned.log.read(|state| state.summary.clone()).await;
        let evidence = Evidence {
            format: evidence::FORMAT,
            session: self.owned.id.to_string(),
            turn: self.turn.turn_id.clone(),
            repository: summary.repository,
            base: proof.base.clone(),
            commit: Some(commit.to_owned()),
            branch: Some(branch.to_owned()),
            agent: summary.agent,
            model: self.turn.prompt.model.clone().unwrap_or(summary.model),
            outcome: verdict.outcome,
            rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX),
            gave_up: verdict.gave_up.clone(),
            checks,
            usage: spent(&self.usage_before, &summary.usage),
            started_at_ms: self.turn.started_ms,
            ended_at_ms: now_ms,
        };
        let json = evidence.to_json().map_err(|error| format!("failed to write the evidence: {error}"))?;
        let new = NewArtifact {
            artifact_id: house.deps.ids.next(),
            kind: "evidence",
            name: "evidence.json",
            media_type: "application/json",
            at_ms: now_ms,
        };
        let kept = house.artifacts.keep(new, json.as_bytes()).await;
        let artifact = kept.map_err(|error| format!("failed to keep the evidence: {error}"))?;
        let beside = Beside { answer: None, artifacts: vec![artifact.clone()] };
        let patience = house.config.timeouts.disk_full;
        let appended = self.owned.log.append_patiently(vec![added(&artifact)], beside, patience).await;
        appended.map_err(|error| format!("failed to {error}"))
    }

    /// Subject, blank line, body: what was done in the agent's or the asker's words, what proves it, where to look.
    fn commit_message(&self, end: &TurnEnd, checks: &[CheckEvidence]) -> String {
        let words = end.summary.as_deref().filter(|words| !words.trim().is_empty()).unwrap_or(&self.turn.prompt.text);
        let subject = clip(title_of(words).trim_start_matches(['#', ' ', '*']), SUBJECT_BYTES_MAX);
        let mut body = String::new();
        for check in checks {
            body.push_str(&format!("Check {}: {}\n", check.name, told(check.outcome)));
        }
        body.push_str(&format!("Hob-Session: {}", self.owned.id));
        format!("{subject}\n\n{body}")
    }
}

/// The event for a kept file.
pub(crate) fn added(artifact: &Artifact) -> EventKind {
    EventKind::ArtifactAdded {
        artifact_id: artifact.artifact_id.clone(),
        kind: artifact.kind.clone(),
        name: artifact.name.clone(),
        media_type: artifact.media_type.clone(),
        size_bytes: artifact.size_bytes,
        sha256: artifact.sha256.clone(),
    }
}

fn told(outcome: CheckOutcome) -> &'static str {
    match outcome {
        CheckOutcome::Green => "green",
        CheckOutcome::Fixed => "green, was red on the base commit",
        CheckOutcome::Red => "red",
        CheckOutcome::RedOnBase => "red, as it was on the base commit",
    }
}

fn closing_note(branch: &str, commit: &str, checks: &[CheckEvidence], verdict: &Verdict) -> String {
    let mut note = format!("Committed {} on {branch}.", commit.get(..10).unwrap_or(commit));
    let told: Vec<String> = checks.iter().map(|check| format!("{} {}", check.name, told(check.outcome))).collect();
    match told.is_empty() {
        true => note.push_str(" This repository has no checks that Hob knows of."),
        false => note.push_str(&format!(" Checks: {}.", told.join("; "))),
    }
    if let Some(why) = &verdict.gave_up {
        note.push_str(&format!(" Given up: {why}."));
    }
    note
}

fn spent(before: &Usage, after: &Usage) -> evidence::Usage {
    let priced = after.unpriced_calls == before.unpriced_calls;
    evidence::Usage {
        model_calls: after.calls - before.calls,
        input_tokens: after.input_tokens - before.input_tokens,
        output_tokens: after.output_tokens - before.output_tokens,
        cost_micro_usd: priced.then(|| after.cost_micro_usd - before.cost_micro_usd),
    }
}
