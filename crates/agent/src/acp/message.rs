//! JSON-RPC 2.0 messages, one on a line: telling what a line is, and writing our own.
//!
//! Reading is lenient: a missing `jsonrpc`, unknown members and unknown methods are no errors. What is no message at
//! all is [`Incoming::Noise`]: some agents, and most broken ones, print to where they should only speak.

use serde_json::{Value, json};

/// "Method not found" (JSON-RPC 2.0 §5.1).
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// What a line of the agent is.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The agent asks for something and waits for the answer.
    Request { id: Value, method: String, params: Value },
    /// The agent tells something.
    Notification { method: String, params: Value },
    /// The agent answers one of our requests.
    Response { id: u64, result: Result<Value, RpcError> },
    /// Something else.
    Noise,
}

/// An error that the agent answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// Tells what a line is.
pub(super) fn read(line: &str) -> Incoming {
    let Ok(Value::Object(mut message)) = serde_json::from_str(line) else {
        return Incoming::Noise;
    };
    let id = message.remove("id").filter(|id| !id.is_null());
    if let Some(Value::String(method)) = message.remove("method") {
        let params = message.remove("params").unwrap_or(Value::Null);
        return match id {
            Some(id) => Incoming::Request { id, method, params },
            None => Incoming::Notification { method, params },
        };
    }
    let error = message.remove("error").filter(|error| !error.is_null());
    match (id.and_then(|id| our_id(&id)), error, message.remove("result")) {
        (Some(id), Some(error), _) => Incoming::Response { id, result: Err(rpc_error(&error)) },
        (Some(id), None, Some(result)) => Incoming::Response { id, result: Ok(result) },
        _ => Incoming::Noise,
    }
}

/// Our IDs are numbers; an agent may give them back as text.
fn our_id(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_str()?.parse().ok())
}

fn rpc_error(error: &Value) -> RpcError {
    let message = error["message"].as_str().unwrap_or("an error without words");
    let details = match &error["data"] {
        Value::Null => String::new(),
        Value::String(text) => format!(": {text}"),
        data => format!(": {data}"),
    };
    let message = super::clip::start(&format!("{message}{details}"), 2_000).to_owned();
    RpcError { code: error["code"].as_i64().unwrap_or_default(), message }
}

pub(super) fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

pub(super) fn response(id: &Value, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

pub(super) fn error(id: &Value, code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(line: &str, expect: &Incoming) {
        assert_eq!(&read(line), expect);
    }

    #[test]
    fn a_line_is_a_request_a_notification_an_answer_or_noise() {
        check(
            r#"{"jsonrpc":"2.0","id":"x-1","method":"fs/read_text_file","params":{"path":"a"},"extra":1}"#,
            &Incoming::Request { id: json!("x-1"), method: "fs/read_text_file".into(), params: json!({"path": "a"}) },
        );
        check(
            r#"{"method":"session/update"}"#,
            &Incoming::Notification { method: "session/update".into(), params: Value::Null },
        );
        check(r#"{"id":3,"result":{}}"#, &Incoming::Response { id: 3, result: Ok(json!({})) });
        check(r#"{"id":"3","result":null,"error":null}"#, &Incoming::Response { id: 3, result: Ok(Value::Null) });
        let refused = RpcError { code: -32603, message: r#"Internal error: {"details":"no"}"#.into() };
        check(
            r#"{"id":3,"error":{"code":-32603,"message":"Internal error","data":{"details":"no"}}}"#,
            &Incoming::Response { id: 3, result: Err(refused) },
        );
        for noise in ["", "Listening on …", "[]", "{}", r#"{"id":3}"#, r#"{"id":-1,"result":1}"#, "{\"method\":"] {
            check(noise, &Incoming::Noise);
        }
        check(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), &Incoming::Noise);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in "\\PC*") {
            read(&line);
        }

        #[test]
        fn no_members_make_the_reader_panic(
            id in "(null|1|\"a\"|\\[\\]|-1|1e99)", method in "(null|1|\"m\"|\\{\\})", error in "(null|1|\\{\\}|\"x\")"
        ) {
            read(&format!(r#"{{"id":{id},"method":{method},"error":{error},"result":1}}"#));
        }
    }
}
