//! A host that keeps every update.

use std::sync::Mutex;

use async_trait::async_trait;
use hob_agent::{
    Answer, PermissionOutcome, PermissionRequest, Question, ToolCall, ToolContent, ToolStatus, TurnHost, Update,
};
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Host {
    updates: Mutex<Vec<Update>>,
    questions: Mutex<Vec<Question>>,
    pub(crate) answer: Mutex<Option<String>>,
    changed: Notify,
}

impl Host {
    pub(crate) fn updates(&self) -> Vec<Update> {
        self.updates.lock().expect("no panic").clone()
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        self.questions.lock().expect("no panic").clone()
    }

    /// Returns when an update fits.
    pub(crate) async fn until(&self, fits: impl Fn(&Update) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.updates().iter().any(&fits) {
                return;
            }
            changed.await;
        }
    }

    /// All pieces of messages together.
    pub(crate) fn said(&self) -> String {
        let pieces = self.updates().into_iter().filter_map(|update| match update {
            Update::Message { text, .. } => Some(text),
            _ => None,
        });
        pieces.collect()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        let notices = self.updates().into_iter().filter_map(|update| match update {
            Update::Notice(text) => Some(text),
            _ => None,
        });
        notices.collect()
    }

    /// Each tool call as it was last told, in the order of their first appearance.
    pub(crate) fn calls(&self) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::new();
        for update in self.updates() {
            let Update::ToolCall(call) = update else { continue };
            match calls.iter_mut().find(|known| known.id == call.id) {
                Some(known) => *known = call,
                None => calls.push(call),
            }
        }
        calls
    }

    /// One line for each thing that a participant would see.
    pub(crate) fn timeline(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        let calls = self.calls();
        for update in self.updates() {
            match update {
                Update::Message { text, .. } => match lines.last_mut() {
                    Some(last) if last.starts_with("says: ") => last.push_str(&text),
                    _ => lines.push(format!("says: {text}")),
                },
                Update::Thought { text, .. } => lines.push(format!("thinks: {text}")),
                Update::ToolCall(call) if call.status == ToolStatus::Pending => {
                    let last = calls.iter().find(|last| last.id == call.id).expect("is known");
                    lines.push(format!("{} → {:?}", last.title, last.status));
                }
                Update::Plan(entries) => lines.push(format!("plan of {}", entries.len())),
                Update::Notice(text) => lines.push(format!("notice: {text}")),
                Update::Compaction { .. } => lines.push("compacted".to_owned()),
                _ => {}
            }
        }
        lines.join("\n")
    }
}

/// The words of a call's content.
pub(crate) fn text_of(call: &ToolCall) -> String {
    let texts = call.content.iter().filter_map(|content| match content {
        ToolContent::Text { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[async_trait]
impl TurnHost for Host {
    async fn update(&self, update: Update) {
        self.updates.lock().expect("no panic").push(update);
        self.changed.notify_waiters();
    }

    async fn permission(&self, _request: PermissionRequest) -> PermissionOutcome {
        PermissionOutcome::Cancelled
    }

    async fn ask(&self, question: Question) -> Answer {
        self.questions.lock().expect("no panic").push(question);
        match self.answer.lock().expect("no panic").clone() {
            Some(text) => Answer::Text(text),
            None => Answer::None { reason: "nobody is there".to_owned() },
        }
    }
}
