//! Asserts what the server is asked: a client that a real provider would refuse, or that leaks, is found out here.

use serde_json::Value;

use crate::conversation::{Conversation, Item};
use crate::script::Scripts;

/// Everything that is wrong with a request, in words.
pub(crate) fn problems(conversation: &Conversation, body: &Value, scripts: &Scripts) -> Vec<String> {
    let mut problems = conversation.problems.clone();
    if conversation.model.is_empty() {
        problems.push("it names no model".into());
    } else if !scripts.models.is_empty() && !scripts.models.contains(&conversation.model) {
        problems.push(format!("it asks for the model {}, which nobody offers", conversation.model));
    }
    if !conversation.items.iter().any(|item| !matches!(item, Item::System(_))) {
        problems.push("it holds no message".into());
    }
    problems.extend(unmatched_calls(&conversation.items));
    let text = body.to_string();
    problems.extend(credential_in(&text).map(|mark| format!("it holds what looks like a credential ({mark}…)")));
    problems.extend(
        scripts
            .forbidden
            .iter()
            .filter(|word| text.contains(word.as_str()))
            .map(|_| "it holds a forbidden word".into()),
    );
    problems
}

/// Calls without a result, results without a call. Providers refuse both.
fn unmatched_calls(items: &[Item]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut open: Vec<(&str, &str)> = Vec::new();
    for item in items {
        match item {
            Item::Call { id, name } => {
                if !id.is_empty() && open.iter().any(|(other, _)| *other == id) {
                    problems.push(format!("two calls have the ID {id}"));
                }
                open.push((id, name));
            }
            // Formats without IDs match by the name.
            Item::Result { id, name } => {
                let found = open.iter().position(|(of, called)| if id.is_empty() { called == name } else { of == id });
                match found {
                    Some(at) => _ = open.remove(at),
                    None => problems.push(format!("a tool's result ({id}{name}) belongs to no call")),
                }
            }
            Item::User(_) | Item::Assistant(_) | Item::System(_) => {}
        }
    }
    problems.extend(open.iter().map(|(id, name)| format!("the call {id} of {name} has no result")));
    problems
}

/// The first mark of a credential that is followed by enough of a secret to be a real one.
fn credential_in(text: &str) -> Option<&'static str> {
    const MARKS: [&str; 9] = [
        "sk-ant-",
        "sk-proj-",
        "ghp_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "AKIA",
        "PRIVATE KEY-----",
        "uthorization: Bearer ",
    ];
    MARKS.into_iter().find(|mark| {
        text.match_indices(mark).any(|(at, _)| {
            let secret = text[at + mark.len()..].trim_start_matches("\\n");
            secret.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_+/".contains(*c)).count() >= 16
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(id: &str) -> Item {
        Item::Call { id: id.into(), name: "shell".into() }
    }

    fn result(id: &str) -> Item {
        Item::Result { id: id.into(), name: "shell".into() }
    }

    #[track_caller]
    fn check(items: &[Item], expect: usize) {
        assert_eq!(unmatched_calls(items).len(), expect, "{:?}", unmatched_calls(items));
    }

    #[test]
    fn each_call_has_one_result_and_each_result_one_call() {
        check(&[call("a"), call("b"), result("b"), result("a")], 0);
        check(&[call(""), result("")], 0);
        check(&[call("a")], 1);
        check(&[result("a")], 1);
        check(&[call("a"), result("a"), result("a")], 1);
        check(&[call("a"), call("a"), result("a"), result("a")], 1);
    }

    #[test]
    fn credentials_are_told_from_talk_about_them() {
        assert_eq!(credential_in("set ghp_ or sk-ant-… or AKIA"), None);
        assert_eq!(credential_in("ghp_0123456789abcdefghij"), Some("ghp_"));
        assert_eq!(credential_in("Authorization: Bearer abcdefghijklmnop1234"), Some("uthorization: Bearer "));
    }

    #[test]
    fn the_model_and_forbidden_words_are_checked() {
        let scripts = Scripts { models: vec!["m".into()], forbidden: vec!["hush".into()], ..Scripts::default() };
        let conversation =
            Conversation { model: "n".into(), items: vec![Item::User("hush".into())], ..Conversation::default() };
        assert_eq!(problems(&conversation, &json!({"x": "hush"}), &scripts).len(), 2);
    }
}
