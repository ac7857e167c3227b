//! The configured models, as the client libraries expect a provider to list them.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Body, json as answer, model_problem};
use crate::config::{Catalogue, ModelConfig};
use crate::model::route::Dialect;

/// Every model.
pub(crate) fn all(catalogue: &Catalogue, dialect: Dialect) -> Response<Body> {
    let models: Vec<Value> = catalogue.models().iter().map(|model| describe(model, dialect)).collect();
    let ends = |model: Option<&ModelConfig>| model.map(|model| model.id.clone());
    let list = match dialect {
        Dialect::Common => json!({
            "object": "list",
            "data": models,
            "has_more": false,
            "first_id": ends(catalogue.models().first()),
            "last_id": ends(catalogue.models().last()),
        }),
        Dialect::Gemini => json!({ "models": models }),
    };
    answer(StatusCode::OK, &list)
}

/// One model.
pub(crate) fn one(catalogue: &Catalogue, dialect: Dialect, id: &str) -> Response<Body> {
    match catalogue.model(id) {
        Some((model, _)) => answer(StatusCode::OK, &describe(model, dialect)),
        None => model_problem(StatusCode::NOT_FOUND, "not_found_error", "there is no such model here"),
    }
}

fn describe(model: &ModelConfig, dialect: Dialect) -> Value {
    let id = &model.id;
    match dialect {
        // OpenAI's `object`, `created` and `owned_by` beside Anthropic's `type`, `display_name` and `created_at`.
        Dialect::Common => json!({
            "id": id,
            "object": "model",
            "type": "model",
            "display_name": id,
            "created": 0,
            "created_at": "1970-01-01T00:00:00Z",
            "owned_by": model.provider,
        }),
        Dialect::Gemini => json!({
            "name": format!("models/{id}"),
            "displayName": id,
            "inputTokenLimit": model.context_tokens,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }),
    }
}
