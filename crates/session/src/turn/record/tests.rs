use std::sync::Mutex;

use bytes::Bytes;
use hob_agent::{AgentError, Author, ToolCall, ToolKind, ToolStatus};

use super::*;
use crate::error::EngineError;
use crate::requests::Usage;

/// A log in memory, batch by batch.
#[derive(Default)]
struct Log(Mutex<Vec<Vec<EventKind>>>);

#[async_trait]
impl Journal for Log {
    async fn append(&self, kinds: Vec<EventKind>) -> Result<(), EngineError> {
        self.0.lock().unwrap().push(kinds);
        Ok(())
    }

    async fn artifact(&self, _: &str, _: &str, _: &str, _: Bytes) -> Result<String, EngineError> {
        unreachable!("an agent's words are no artifacts")
    }

    async fn permission(&self, request: PermissionRequest) -> PermissionOutcome {
        let text = format!("asked {}", request.request_id);
        self.0.lock().unwrap().push(vec![EventKind::Notice { text }]);
        PermissionOutcome::Selected { option_id: "yes".to_owned() }
    }

    async fn ask(&self, _: Question) -> Answer {
        Answer::None { reason: "nobody is there".to_owned() }
    }

    async fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// What an agent does in its turn.
enum Step {
    Say(&'static str, &'static str),
    Call(ToolStatus),
    Pause(Duration),
    AskPermission,
    Hang,
    IgnoreStop,
}

struct Speaker(Vec<Step>);

#[async_trait]
impl Agent for Speaker {
    async fn prompt(&mut self, _: Prompt, host: &dyn TurnHost, stop: CancellationToken) -> Result<TurnEnd, AgentError> {
        for step in &self.0 {
            match step {
                Step::Say(id, text) => {
                    host.update(Update::Message { message_id: (*id).to_owned(), text: (*text).to_owned() }).await;
                }
                Step::Call(status) => host.update(Update::ToolCall(call(*status))).await,
                Step::Pause(time) => sleep(*time).await,
                Step::AskPermission => {
                    let tool_call = call(ToolStatus::Pending);
                    let request = PermissionRequest { request_id: "p1".to_owned(), tool_call, options: Vec::new() };
                    let outcome = host.permission(request).await;
                    assert_eq!(outcome, PermissionOutcome::Selected { option_id: "yes".to_owned() });
                }
                Step::Hang => {
                    stop.cancelled().await;
                    return Ok(TurnEnd { stop_reason: StopReason::Cancelled, summary: None });
                }
                Step::IgnoreStop => std::future::pending().await,
            }
        }
        Ok(TurnEnd { stop_reason: StopReason::EndTurn, summary: None })
    }

    async fn close(self: Box<Self>) {}
}

fn call(status: ToolStatus) -> ToolCall {
    ToolCall {
        id: "c1".to_owned(),
        name: "shell".to_owned(),
        title: "shell".to_owned(),
        kind: ToolKind::Execute,
        status,
        input: serde_json::Value::Null,
        content: Vec::new(),
        locations: Vec::new(),
    }
}

async fn record(steps: Vec<Step>, stop: CancellationToken) -> (Result<TurnEnd, TurnError>, Vec<Vec<EventKind>>) {
    let log = Log::default();
    let author = Author { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    let words = Prompt { text: "Fix it".to_owned(), images: Vec::new(), author, model: None };
    let ended = prompt(&mut Speaker(steps), words, &log, &stop, &Timeouts::default()).await;
    (ended, log.0.into_inner().unwrap())
}

fn told(batches: &[Vec<EventKind>]) -> Vec<Vec<String>> {
    let tell = |kind: &EventKind| match kind {
        EventKind::Message { message_id, offset, text } => format!("{message_id}@{offset} {text}"),
        EventKind::ToolCall(call) => format!("{:?}", call.status),
        EventKind::Notice { text } => text.clone(),
        other => format!("{other:?}"),
    };
    batches.iter().map(|batch| batch.iter().map(tell).collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_piece_is_written_at_once_and_the_rest_in_windows() {
    let steps = vec![
        Step::Say("m", "é"),
        Step::Say("m", "b"),
        Step::Say("m", "c"),
        Step::Say("n", "d"),
        Step::Pause(Duration::from_millis(200)),
        Step::Say("n", "e"),
    ];
    let (ended, log) = record(steps, CancellationToken::new()).await;
    assert_eq!(ended.unwrap().stop_reason, StopReason::EndTurn);
    assert_eq!(told(&log), [vec!["m@0 é"], vec!["m@2 bc", "n@0 d"], vec!["n@1 e"]]);
}

#[tokio::test(start_paused = true)]
async fn of_a_tool_call_only_the_latest_state_of_a_window_is_kept() {
    let steps = vec![
        Step::Say("m", "a"),
        Step::Call(ToolStatus::Pending),
        Step::Call(ToolStatus::InProgress),
        Step::Call(ToolStatus::Completed),
    ];
    let (_, log) = record(steps, CancellationToken::new()).await;
    assert_eq!(told(&log), [vec!["m@0 a"], vec!["Completed"]]);
}

#[tokio::test(start_paused = true)]
async fn a_question_comes_after_what_was_said_before_it() {
    let steps = vec![Step::Say("m", "a"), Step::Say("m", "b"), Step::AskPermission, Step::Say("m", "c")];
    let (ended, log) = record(steps, CancellationToken::new()).await;
    ended.unwrap();
    assert_eq!(told(&log).concat(), ["m@0 a", "m@1 b", "asked p1", "m@2 c"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_gives_no_sign_of_life_is_ended_with_the_cause() {
    let (ended, log) = record(vec![Step::Say("m", "a"), Step::Hang], CancellationToken::new()).await;
    assert!(matches!(ended, Err(TurnError::Silent { seconds: 900 })), "{ended:?}");
    assert_eq!(told(&log), [vec!["m@0 a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_turn_also_when_the_agent_ignores_it() {
    for last in [Step::Hang, Step::IgnoreStop] {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let turn = record(vec![Step::Say("m", "a"), last], stop);
        let ((ended, log), ()) = tokio::join!(turn, async move {
            sleep(Duration::from_secs(5)).await;
            stopping.cancel();
        });
        assert_eq!(ended.unwrap().stop_reason, StopReason::Cancelled);
        assert_eq!(told(&log), [vec!["m@0 a"]]);
    }
}
