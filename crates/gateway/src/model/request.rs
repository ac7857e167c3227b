//! Reads what the gateway must know of a model call's body, and rewrites the model's name and nothing else.
//!
//! All other members keep their bytes and their order: models read tool schemas in the order in which they are
//! written, and providers cache by exact prefix.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::config::WireFormat;
use crate::model::route::{CallRoute, Verb};

/// A model call's body, read.
#[derive(Debug)]
pub(crate) struct ModelRequest {
    body: Bytes,
    model: String,
    rewrite: Rewrite,
}

/// Why a body is no model call.
#[derive(Debug, Error)]
pub(crate) enum RequestFault {
    #[error("the body is no JSON object: {0}")]
    NoJson(#[from] serde_json::Error),
    #[error("the body has no string `model`")]
    NoModel,
    #[error("the body names `{0}` twice")]
    Twice(&'static str),
}

/// What is changed on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    /// Nothing: the model is in the path.
    Nothing,
    /// The model's name.
    Model,
    /// The model's name, and usage is asked for.
    ModelAndUsage,
}

/// The members of a JSON object in their order, with their values as they were written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl ModelRequest {
    pub(crate) fn parse(body: Bytes, route: &CallRoute) -> Result<Self, RequestFault> {
        let members: Members<'_> = serde_json::from_slice(&body)?;
        if let Some(model) = &route.model {
            let model = model.clone();
            return Ok(Self { body, model, rewrite: Rewrite::Nothing });
        }
        let model = members.one("model")?.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
        let model = model.ok_or(RequestFault::NoModel)?;
        let streamed = members.one("stream")?.is_some_and(|value| value.get() == "true");
        members.one("stream_options")?;
        let asks_usage = route.format == WireFormat::ChatCompletions && route.verb == Verb::Generate && streamed;
        let rewrite = if asks_usage { Rewrite::ModelAndUsage } else { Rewrite::Model };
        Ok(Self { body, model, rewrite })
    }

    /// The model that is asked for.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The body for a provider that calls the model by this name.
    pub(crate) fn body_for(&self, upstream: &str) -> Result<Bytes, serde_json::Error> {
        if self.rewrite == Rewrite::Nothing {
            return Ok(self.body.clone());
        }
        let mut members: Members<'_> = serde_json::from_slice(&self.body)?;
        let model = serde_json::value::to_raw_value(upstream)?;
        let options = if self.rewrite == Rewrite::ModelAndUsage { members.usage_options()? } else { None };
        members.set("model", &model);
        if let Some(options) = &options {
            members.set("stream_options", options);
        }
        serde_json::to_vec(&members).map(Bytes::from)
    }
}

impl<'a> Members<'a> {
    /// The member of this name. Two of them are refused: the provider might read the other one.
    fn one(&self, name: &'static str) -> Result<Option<&'a RawValue>, RequestFault> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(RequestFault::Twice(name)),
            (found, None) => Ok(found),
        }
    }

    fn set(&mut self, name: &str, value: &'a RawValue) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, found)) => *found = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// `stream_options` with `include_usage`, whatever else the client has put there; `None` where it is no object.
    fn usage_options(&self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        let present = self.0.iter().find(|(key, _)| key == "stream_options").map(|(_, value)| value.get());
        let present = present.filter(|text| *text != "null").unwrap_or("{}");
        let Ok(mut options) = serde_json::from_str::<Members<'_>>(present) else { return Ok(None) };
        let yes = serde_json::value::to_raw_value(&true)?;
        options.set("include_usage", &yes);
        serde_json::value::to_raw_value(&options).map(Some)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader).map(Members)
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> CallRoute {
        CallRoute { format: WireFormat::ChatCompletions, verb: Verb::Generate, model: None }
    }

    #[track_caller]
    fn check(body: &'static str, expect: &str) {
        let request = ModelRequest::parse(Bytes::from_static(body.as_bytes()), &chat()).unwrap();
        assert_eq!(request.body_for("up/stream").unwrap(), expect);
    }

    #[test]
    fn only_the_model_changes_and_order_and_numbers_stay() {
        check(
            r#"{"z":1.50,"model":"m","tools":[{"b":1,"a":{"y":1e2, "x":null}}]}"#,
            r#"{"z":1.50,"model":"up/stream","tools":[{"b":1,"a":{"y":1e2, "x":null}}]}"#,
        );
    }

    #[test]
    fn a_streamed_chat_asks_for_usage() {
        check(
            r#"{"model":"m","stream":true}"#,
            r#"{"model":"up/stream","stream":true,"stream_options":{"include_usage":true}}"#,
        );
        check(
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"other":1}}"#,
            r#"{"model":"up/stream","stream":true,"stream_options":{"include_usage":true,"other":1}}"#,
        );
        check(
            r#"{"model":"m","stream_options":null,"stream":true}"#,
            r#"{"model":"up/stream","stream_options":{"include_usage":true},"stream":true}"#,
        );
        check(r#"{"model":"m","stream":false}"#, r#"{"model":"up/stream","stream":false}"#);
    }

    #[test]
    fn what_is_no_call_is_refused_with_its_reason() {
        let refused = |body: &'static str| {
            ModelRequest::parse(Bytes::from_static(body.as_bytes()), &chat()).unwrap_err().to_string()
        };
        assert!(refused("{\"model\":").contains("no JSON object"));
        assert!(refused("[1]").contains("no JSON object"));
        assert!(refused("{\"model\":7}").contains("no string `model`"));
        assert!(refused(r#"{"model":"cheap","model":"dear"}"#).contains("`model` twice"));
        assert!(refused(r#"{"model":"cheap","\u006dodel":"dear"}"#).contains("`model` twice"));
    }

    #[test]
    fn a_deeply_nested_body_does_no_harm() {
        let body = format!(r#"{{"model":"m","x":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        let parsed = ModelRequest::parse(Bytes::from(body), &chat());
        assert!(parsed.is_ok_and(|request| request.model() == "m"));
    }
}
