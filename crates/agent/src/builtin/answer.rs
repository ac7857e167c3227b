//! Listens to an answer of the model and tells the participants as it comes.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls;
use super::ids::Ids;
use super::model::{Answer, ModelError, ModelEvent};
use crate::agent::TurnHost;
use crate::update::{ToolContent, ToolStatus, Update};

/// More calls than this in one answer are not announced, and not run.
pub(super) const CALLS_MAX: usize = 64;

/// A provider that only says that it is still there is not listened to for longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45 * 60);

/// What came of a request.
pub(super) enum Heard {
    /// A whole answer; each of its calls has an ID.
    Answer { answer: Answer, call_ids: Vec<String> },
    /// The turn was stopped; this was said until then.
    Stopped { text: String },
}

/// Listens to the end of the answer. `patience` is how long the model may be silent.
pub(super) async fn listen(
    mut stream: BoxStream<'static, Result<ModelEvent, ModelError>>,
    host: &dyn TurnHost,
    stop: &CancellationToken,
    ids: &mut Ids,
    patience: Duration,
) -> Result<Heard, ModelError> {
    let mut telling = Telling { host, message_id: ids.message(), thought_id: ids.message(), announced: Vec::new() };
    let mut text = String::new();
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let outcome = loop {
        let silent_until = deadline.min(Instant::now() + patience);
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(Heard::Stopped { text }),
            event = tokio::time::timeout_at(silent_until, stream.next()) => event,
        };
        match event {
            Ok(Some(Ok(ModelEvent::End(answer)))) => {
                let call_ids = telling.calls_are(ids, &answer).await;
                break Ok(Heard::Answer { answer, call_ids });
            }
            Ok(Some(Ok(ModelEvent::Text(piece)))) => {
                text.push_str(&piece);
                telling.message(piece).await;
            }
            Ok(Some(Ok(ModelEvent::Thought(piece)))) => telling.thought(piece).await,
            Ok(Some(Ok(ModelEvent::CallBegan { name }))) => telling.call_began(ids, &name).await,
            Ok(Some(Ok(ModelEvent::Alive))) => {}
            Ok(Some(Err(error))) => break Err(error),
            Ok(None) => break Err(ModelError::Cut("the connection ended in the middle of the answer".to_owned())),
            Err(_) if silent_until == deadline => {
                break Err(ModelError::Cut(format!("it was not whole after {} s", ANSWER_TIME_MAX.as_secs())));
            }
            Err(_) => break Err(ModelError::Cut(format!("nothing came for {} s", patience.as_secs()))),
        }
    };
    telling.withdraw().await;
    outcome
}

/// What the participants have been told of the answer.
struct Telling<'a> {
    host: &'a dyn TurnHost,
    message_id: String,
    thought_id: String,
    /// IDs and names of the calls that began.
    announced: Vec<(String, String)>,
}

impl Telling<'_> {
    async fn message(&self, text: String) {
        if !text.is_empty() {
            self.host.update(Update::Message { message_id: self.message_id.clone(), text }).await;
        }
    }

    async fn thought(&self, text: String) {
        if !text.is_empty() {
            self.host.update(Update::Thought { message_id: self.thought_id.clone(), text }).await;
        }
    }

    async fn call_began(&mut self, ids: &mut Ids, name: &str) {
        if self.announced.len() >= CALLS_MAX {
            return;
        }
        let call = calls::view(ids.call(), name, &json!({}), "");
        self.announced.push((call.id.clone(), call.name.clone()));
        self.host.update(Update::ToolCall(call)).await;
    }

    /// Announces those of the answer's calls that did not show while it streamed: all are known before it ends, which
    /// is how the log tells one answer from the next. Gives the ID of each.
    async fn calls_are(&mut self, ids: &mut Ids, answer: &Answer) -> Vec<String> {
        for asked in answer.calls.iter().skip(self.announced.len()) {
            let call = calls::view(ids.call(), &asked.name, &asked.input, "");
            self.announced.push((call.id.clone(), call.name.clone()));
            self.host.update(Update::ToolCall(call)).await;
        }
        let surplus = self.announced.split_off(answer.calls.len());
        let known = std::mem::replace(&mut self.announced, surplus);
        known.into_iter().map(|(id, _)| id).collect()
    }

    /// Ends the calls that were announced and will not come.
    async fn withdraw(&mut self) {
        for (id, name) in std::mem::take(&mut self.announced) {
            let content =
                vec![ToolContent::Text { text: "the answer broke off before this call was whole".to_owned() }];
            let call = calls::view(id, &name, &json!({}), "");
            self.host
                .update(Update::ToolCall(crate::update::ToolCall { status: ToolStatus::Failed, content, ..call }))
                .await;
        }
    }
}
