//! Failures as answers: problem details of RFC 9457, with the members that the CLI prints.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use regraft_model::error_kind::ErrorKind;
use tokio::task::JoinError;

use super::types::{ErrorBody, Problem};
use crate::serve::error::HostError;

/// Media type of an answer to a request that failed.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A failure, and the status that it is answered with.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: ErrorBody,
}

impl Refusal {
    /// Returns a failure that is about no uid and no file.
    pub(super) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ErrorBody::new(kind, message),
        }
    }
}

impl From<&HostError> for Refusal {
    fn from(error: &HostError) -> Self {
        let status = match error {
            HostError::NoSuchJob(_) | HostError::NoSuchOperation { .. } => StatusCode::NOT_FOUND,
            error => match error.kind() {
                ErrorKind::Usage => StatusCode::BAD_REQUEST,
                ErrorKind::Failed | ErrorKind::Interrupted => StatusCode::CONFLICT,
                ErrorKind::Data | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        Self {
            status,
            error: error.into(),
        }
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        (&error).into()
    }
}

impl From<Arc<HostError>> for Refusal {
    fn from(error: Arc<HostError>) -> Self {
        (&*error).into()
    }
}

impl From<JoinError> for Refusal {
    fn from(panicked: JoinError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Bug, panicked.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        let body = Problem {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: error.message.clone(),
            error,
        };
        (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(body)).into_response()
    }
}

/// Answers with a failure that is about no uid and no file.
pub(super) fn problem(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Response {
    Refusal::new(status, kind, message).into_response()
}
