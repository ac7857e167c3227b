//! Errors as HTTP says them: RFC 9457 problem documents.
//!
//! The one place that knows which failure has which status. `type` is a stable URI that clients compare; `title` is
//! the same for every problem of a type; `detail` says what to do about this one.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hob_session::EngineError;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Which problem it is, such as `urn:hob:problem:not-found`. Stable.
    #[serde(rename = "type")]
    pub kind: String,
    /// What sort of problem it is, in words; the same for every problem of a type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do about it.
    pub detail: String,
}

impl Problem {
    /// Makes a problem of the type `name`.
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:hob:problem:{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    /// 400: the request cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be understood", detail)
    }

    /// 401: nobody is signed in.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Nobody is signed in", detail)
    }

    /// 403: the request comes from a place that may not send it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The request is not allowed", detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    /// 409: it cannot be done in the state that things are in.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Not possible in this state", detail)
    }

    /// 413: more than the server takes.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// 422: understood, but a value in it cannot be used.
    pub fn unusable(name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, name, title, detail)
    }

    /// 500: the server failed. What happened is logged here, once, and told to whoever asked: the owner.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!("failed to {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", format!("failed to {error}"))
    }

    /// 503: not now; the same request may work later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible now", detail)
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hob\""));
        }
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let detail = format!("failed to {error}");
        match error {
            EngineError::NoSuchSession(_)
            | EngineError::NoSuchPrompt { .. }
            | EngineError::NoSuchRequest { .. }
            | EngineError::NoSuchArtifact { .. }
            | EngineError::NoSuchImage(_)
            | EngineError::File { missing: true, .. } => Self::not_found(detail),
            EngineError::Invalid(_) | EngineError::File { .. } => {
                Self::unusable("unusable", "A value cannot be used", detail)
            }
            EngineError::Repository { .. } => {
                Self::unusable("unusable-repository", "The repository cannot be used", detail)
            }
            EngineError::PromptTooLong { .. } => Self::too_large(detail),
            EngineError::QueueFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue-full", "Too many prompts wait", detail)
            }
            EngineError::WrongState { .. } | EngineError::Archived(_) => Self::conflict(detail),
            EngineError::DiskFull { .. } => {
                tracing::error!("{detail}");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "The disk is full", detail)
            }
            EngineError::Sandbox(_) | EngineError::Fenced { .. } | EngineError::ShuttingDown => {
                Self::unavailable(detail)
            }
            EngineError::Deadline { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "It took too long", detail)
            }
            other => Self::internal(&other),
        }
    }
}
