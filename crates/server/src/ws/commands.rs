//! Commands of WebSocket clients, each carried out once however often it is sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use hob_agent::Author;
use hob_session::{NewPrompt, SessionId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::frames::{Outcome, ToClient};
use crate::api::{App, PromptAccepted};
use crate::problem::Problem;

/// Answers that are remembered. A client resends what was not answered before it lost its socket, which is little.
const ACKS_MAX: usize = 4_096;

/// What a client may ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Queues a prompt.
    Prompt {
        /// The session.
        session: SessionId,
        /// Its words.
        text: String,
        /// The model for this prompt.
        #[serde(default)]
        model: Option<String>,
    },
    /// Takes back a prompt that has not started.
    Cancel {
        /// The session.
        session: SessionId,
        /// The prompt.
        prompt_id: String,
    },
    /// Stops the turn that runs.
    Stop {
        /// The session.
        session: SessionId,
    },
    /// Closes a session for good.
    Archive {
        /// The session.
        session: SessionId,
    },
    /// Answers a permission request.
    Permission {
        /// The session.
        session: SessionId,
        /// The request.
        request_id: String,
        /// One of its options.
        option: String,
    },
    /// Answers a question.
    Answer {
        /// The session.
        session: SessionId,
        /// The question.
        question_id: String,
        /// The words.
        text: String,
    },
}

/// The answers to commands, by the client's ID of each.
#[derive(Debug, Default)]
pub struct Acks(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    answers: HashMap<String, Arc<OnceCell<Outcome>>>,
    order: VecDeque<String>,
}

impl Acks {
    /// Carries out a command, or gives the answer of the first time.
    pub(super) async fn carry_out(&self, app: &App, author: Author, id: String, command: Command) -> ToClient {
        if id.is_empty() || id.len() > 200 {
            let error = Problem::malformed("a command's id has 1 to 200 bytes");
            return ToClient::Ack { id, outcome: Outcome::Error(error) };
        }
        let answer = self.answer(&id);
        let outcome = answer.get_or_init(|| outcome(app, author, &id, command)).await.clone();
        ToClient::Ack { id, outcome }
    }

    fn answer(&self, id: &str) -> Arc<OnceCell<Outcome>> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = remembered.answers.get(id) {
            return Arc::clone(answer);
        }
        if remembered.order.len() == ACKS_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.answers.remove(&oldest);
        }
        remembered.order.push_back(id.to_owned());
        Arc::clone(remembered.answers.entry(id.to_owned()).or_default())
    }
}

async fn outcome(app: &App, author: Author, id: &str, command: Command) -> Outcome {
    match perform(app, author, id, command).await {
        Ok(result) => Outcome::Result(result),
        Err(error) => Outcome::Error(error.into()),
    }
}

async fn perform(app: &App, author: Author, id: &str, command: Command) -> Result<Value, hob_session::EngineError> {
    let engine = &app.engine;
    match command {
        Command::Prompt { session, text, model } => {
            // The engine remembers the key on disk, so that a resend after a restart of the server is a no-op too.
            let idempotency_key = Some(id.to_owned());
            let prompt = NewPrompt { text, author, attachments: Vec::new(), model, idempotency_key };
            let accepted = PromptAccepted::from(engine.prompt(&session, prompt).await?);
            return Ok(json!(accepted));
        }
        Command::Cancel { session, prompt_id } => engine.cancel_prompt(&session, &prompt_id, author).await?,
        Command::Stop { session } => engine.stop(&session, author).await?,
        Command::Archive { session } => engine.archive(&session, author).await?,
        Command::Permission { session, request_id, option } => {
            engine.answer_permission(&session, &request_id, &option, author).await?;
        }
        Command::Answer { session, question_id, text } => {
            engine.answer_question(&session, &question_id, &text, author).await?;
        }
    }
    Ok(json!({}))
}
