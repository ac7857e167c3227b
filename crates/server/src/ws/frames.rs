//! What is said on the WebSocket. Each frame is a JSON object whose `op` names it; the other fields are its own.
//!
//! ```text
//! → {"op":"hello","protocol":1}                   ← {"op":"welcome","user":{…},"protocol":1}
//! → {"op":"sub","topic":"sessions/ID","since":7}  ← {"op":"replay","topic":…,"from":7,"to":9,"events":[…]}
//! → {"op":"sub","topic":"sessions/ID"}            ← {"op":"snapshot","topic":…,"seq":9,"state":{…},"tail":[…]}
//!                                                 ← {"op":"event","topic":…,"seq":10,"at_ms":…,"type":…,…}
//! → {"op":"cmd","id":"c1","command":"prompt",…}   ← {"op":"ack","id":"c1","result":{…}} or {…,"error":{…}}
//! → {"op":"typing","repository":…,"base":…}       the first keys of a prompt: a sandbox is made warm
//!                                                 ← {"op":"error","topic":…,"error":{…}}
//! ```
//!
//! An event is what the log holds, with `op` and `topic` put in front. Errors are problem documents (RFC 9457). A
//! replay may come in several frames, each from where the last one ended; events after it follow without a gap.

use axum::extract::ws::Utf8Bytes;
use hob_agent::Author;
use hob_session::{Record, SessionId};
use serde::{Deserialize, Serialize};

use super::commands::Command;
use crate::api::SessionView;
use crate::problem::Problem;

/// The version of what is said here.
pub const PROTOCOL: u32 = 1;

/// Events at the end of the log that a snapshot shows.
pub(super) const TAIL_LEN: u64 = 200;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FromClient {
    /// The first frame.
    Hello {
        /// The version that the client speaks.
        protocol: u32,
    },
    /// Follows a topic: `sessions/ID`.
    Sub {
        /// The topic.
        topic: String,
        /// The last sequence number that the client has; without it a snapshot comes first.
        #[serde(default)]
        since: Option<u64>,
    },
    /// Follows a topic no more.
    Unsub {
        /// The topic.
        topic: String,
    },
    /// Asks for something to be done.
    Cmd {
        /// The client's name for it. A second command of the same name is a no-op with the first one's answer.
        id: String,
        /// What to do.
        #[serde(flatten)]
        command: Command,
    },
    /// A prompt is being written.
    Typing {
        /// For which repository, where there is no session yet: then a sandbox is made warm for it.
        #[serde(default)]
        repository: Option<String>,
        /// The branch, tag or commit that work starts from.
        #[serde(default)]
        base: Option<String>,
        /// The agent.
        #[serde(default)]
        agent: Option<String>,
        /// The model.
        #[serde(default)]
        model: Option<String>,
    },
}

/// What the server says, beside events, replays and snapshots, which are put together from the store's own JSON.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ToClient {
    /// The answer to `hello`.
    Welcome {
        /// Who the client is.
        user: Author,
        /// The version that the server speaks.
        protocol: u32,
    },
    /// The answer to a command.
    Ack {
        /// The client's name for it.
        id: String,
        /// What came of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A frame could not be understood, or a topic cannot be followed.
    Error {
        /// The topic, where it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        /// What is wrong.
        error: Problem,
    },
}

/// What came of a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Result(serde_json::Value),
    /// It was not.
    Error(Problem),
}

impl ToClient {
    pub(super) fn error(topic: Option<String>, problem: &Problem) -> Self {
        Self::Error { topic, error: problem.clone() }
    }

    pub(super) fn encode(&self) -> Utf8Bytes {
        // Serialising these shapes cannot fail: their keys are strings and their numbers are finite.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// The session that a topic is about.
pub(super) fn session_of(topic: &str) -> Option<SessionId> {
    SessionId::new(topic.strip_prefix("sessions/")?).ok()
}

pub(super) fn event(id: &SessionId, record: &Record) -> Utf8Bytes {
    // The record is an object, and an ID holds nothing that JSON would escape.
    let fields = record.json.strip_prefix('{').unwrap_or("}");
    format!("{{\"op\":\"event\",\"topic\":\"sessions/{id}\",{fields}").into()
}

pub(super) fn replay(id: &SessionId, from: u64, to: u64, records: &[Record]) -> Utf8Bytes {
    let head = format!("{{\"op\":\"replay\",\"topic\":\"sessions/{id}\",\"from\":{from},\"to\":{to},\"events\":[");
    with_records(head, records)
}

pub(super) fn snapshot(id: &SessionId, seq: u64, state: &SessionView, tail: &[Record]) -> Utf8Bytes {
    let state = serde_json::to_string(state).unwrap_or_default();
    let head = format!("{{\"op\":\"snapshot\",\"topic\":\"sessions/{id}\",\"seq\":{seq},\"state\":{state},\"tail\":[");
    with_records(head, tail)
}

fn with_records(mut frame: String, records: &[Record]) -> Utf8Bytes {
    frame.reserve(records.iter().map(|record| record.json.len() + 1).sum::<usize>() + 2);
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            frame.push(',');
        }
        frame.push_str(&record.json);
    }
    frame.push_str("]}");
    frame.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        Record { seq: 3, at_ms: 5, json: r#"{"seq":3,"at_ms":5,"type":"notice","text":"hi"}"#.into() }
    }

    fn parsed(text: &Utf8Bytes) -> serde_json::Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_event_is_the_log_entry_with_its_topic() {
        let id = SessionId::new("k3v9").unwrap();
        let expect =
            json!({"op": "event", "topic": "sessions/k3v9", "seq": 3, "at_ms": 5, "type": "notice", "text": "hi"});
        assert_eq!(parsed(&event(&id, &record())), expect);
    }

    #[test]
    fn a_replay_says_from_where_to_where() {
        let id = SessionId::new("k3v9").unwrap();
        let frame = parsed(&replay(&id, 2, 3, &[record(), record()]));
        assert_eq!(
            (&frame["from"], &frame["to"], frame["events"].as_array().unwrap().len()),
            (&json!(2), &json!(3), 2)
        );
        assert_eq!(parsed(&replay(&id, 2, 2, &[]))["events"], json!([]));
    }

    #[test]
    fn a_command_is_read_with_its_fields() {
        let text = r#"{"op":"cmd","id":"c1","command":"stop","session":"k3v9"}"#;
        assert!(matches!(serde_json::from_str(text).unwrap(), FromClient::Cmd { id, .. } if id == "c1"));
    }
}
