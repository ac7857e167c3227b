//! A stand-in for a model, for tests and for the demo without a key. **It is no real model**: it plays a script.
//!
//! It speaks OpenAI chat completions, OpenAI responses, Anthropic messages and Gemini, streaming and not. The script is
//! chosen by the prompt, the step by how far the conversation is, so the server keeps no conversation and any number
//! of clients may use it at once. Steps are abstract ([`Step::Edit`], [`Step::Shell`]…) and become calls of whatever
//! tools the request offers, so that one script drives every agent alike. It also checks what it is asked: see
//! [`Running::violations`].
//!
//! The format of script files is described in `README.md` beside this crate's `Cargo.toml`.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use hob_scripted_model::{ScriptedModel, Scripts, Step};
//!
//! let model = ScriptedModel::start(Scripts::new().script("greet", [Step::say("Hello.")])).await?;
//! // … point an agent at `model.base_url()` and prompt it with "@@script:greet@@" …
//! assert!(model.violations().is_empty());
//! model.shutdown().await;
//! # Ok(()) }
//! ```

mod check;
mod conversation;
mod play;
mod record;
mod script;
mod server;
mod tools;
mod wire;

pub use record::{Recorded, Usage};
pub use script::{Fault, Script, ScriptError, Scripts, Step};
pub use server::{Running, ScriptedModel};
pub use wire::Wire;

/// The header that every answer carries.
pub const HEADER: &str = "x-scripted-model";
/// What [`HEADER`] says.
pub const HEADER_VALUE: &str = "this is no real model";
/// The model's name in lists of models. Requests may use any name unless [`Scripts::models`] restricts them.
pub const MODEL: &str = "scripted-model";
