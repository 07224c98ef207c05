//! Bodies of requests: how large they may be, how long they may take, and how many are in memory at a time.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body as AnyBody, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt as _;
use regraft_model::error_kind::ErrorKind;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::problem;
use crate::dataflow::control::locked;

/// Largest component that can be uploaded, bytes.
const COMPONENT_BYTES_MAX: usize = 128 << 20;
/// Largest JSON body, bytes: a job file may have 1 MiB, and each of its arguments comes on top.
const JSON_BYTES_MAX: usize = 4 << 20;
/// Size from which on a JSON body is parsed on a thread of its own, bytes.
const PARSED_APART: usize = 64 << 10;
/// Time between two parts of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a JSON body may take.
const JSON_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that a component may take.
const COMPONENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Time that a request waits until fewer bodies are being read.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of components that are received or loaded at a time: each may have 128 MiB, and takes a thread while it is loaded.
const COMPONENTS_MAX: usize = 4;
/// Turns for components.
static COMPONENTS: Semaphore = Semaphore::const_new(COMPONENTS_MAX);
/// Time that a request waits for its turn, in which others may be compiled.
const COMPONENT_TURN_TIMEOUT: Duration = Duration::from_secs(180);
/// Number of JSON bodies that are received and parsed at a time.
static JSONS: Semaphore = Semaphore::const_new(16);
/// Part of an unread body that is received before the answer is sent, bytes.
const DRAINED_MAX: usize = 1 << 20;
/// Time that receiving it may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// JSON body of a request, of any content type; an empty body is `{}`. A malformed one is answered with a problem.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let _turn = turn(&JSONS, TURN_TIMEOUT).await?;
        let bytes = received(request, JSON_BYTES_MAX, JSON_TIMEOUT).await?;
        let is_small = bytes.len() < PARSED_APART;
        let parse = move || {
            let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
            serde_json::from_slice(json)
        };
        let parsed = if is_small {
            parse()
        } else {
            let parsed = spawn_blocking(parse).await;
            parsed.unwrap_or_else(|panicked| Err(serde::de::Error::custom(panicked)))
        };
        parsed.map(Self).map_err(|error| {
            problem(
                StatusCode::BAD_REQUEST,
                ErrorKind::Usage,
                format!("the request's body is not the JSON that this path takes: {error}"),
            )
        })
    }
}

/// Component in the body of a request, with its turn, which lasts until the component is loaded.
pub(super) struct Component {
    /// The component.
    pub(super) bytes: Vec<u8>,
    /// Its turn, which ends when this is dropped.
    pub(super) turn: SemaphorePermit<'static>,
}

impl<S: Send + Sync> FromRequest<S> for Component {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let turn = turn(&COMPONENTS, COMPONENT_TURN_TIMEOUT).await?;
        let bytes = received(request, COMPONENT_BYTES_MAX, COMPONENT_TIMEOUT).await?;
        Ok(Self { bytes, turn })
    }
}

/// Query parameters of a request. Malformed ones are answered with a problem.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(problem(
                StatusCode::BAD_REQUEST,
                ErrorKind::Usage,
                rejection.body_text(),
            )),
        }
    }
}

/// Waits until fewer bodies of a kind are being read.
async fn turn(of: &'static Semaphore, patience: Duration) -> Result<SemaphorePermit<'static>, Response> {
    match timeout(patience, of.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => {
            let message = "too many requests are being received; send it again in a moment";
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Failed, message);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            Err(response)
        }
    }
}

/// Receives a body.
async fn received(request: Request, max: usize, time: Duration) -> Result<Vec<u8>, Response> {
    let too_large = || {
        let message = format!("the request's body is larger than {max} bytes, which is the most that this path takes");
        problem(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::Usage, message)
    };
    let body = request.into_body();
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let deadline = Instant::now() + time;
    let mut parts = body.into_data_stream();
    let mut received = vec![];
    loop {
        let until = deadline.min(Instant::now() + IDLE_TIMEOUT);
        match timeout_at(until, parts.next()).await {
            Ok(None) => return Ok(received),
            Ok(Some(Ok(part))) if received.len() + part.len() > max => return Err(too_large()),
            Ok(Some(Ok(part))) => received.extend_from_slice(&part),
            Ok(Some(Err(error))) => {
                let message = format!("the request's body has broken off: {error}");
                return Err(problem(StatusCode::BAD_REQUEST, ErrorKind::Usage, message));
            }
            Err(_) => {
                let message = format!(
                    "the request's body has not come in time: nothing for {} s, or not all of it in {} s",
                    IDLE_TIMEOUT.as_secs(),
                    time.as_secs()
                );
                return Err(problem(StatusCode::REQUEST_TIMEOUT, ErrorKind::Failed, message));
            }
        }
    }
}

/// Receives what a handler has left unread of a small body before the answer is sent: a connection that is closed with
/// unread bytes is reset, and the client may then not see the answer.
pub(super) async fn drained(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let shared = Arc::new(Mutex::new(body));
    let lent = AnyBody::new(Lent(shared.clone()));
    let mut response = next.run(Request::from_parts(parts, lent)).await;
    let mut rest = AnyBody::new(Lent(shared)).into_data_stream();
    let drain = async {
        let mut drained = 0;
        while let Some(part) = rest.next().await {
            drained += part.map_or(DRAINED_MAX, |part: Bytes| part.len());
            if drained >= DRAINED_MAX {
                return false;
            }
        }
        true
    };
    if !timeout(DRAIN_TIMEOUT, drain).await.unwrap_or(false) {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that its lender reads on.
struct Lent(Arc<Mutex<AnyBody>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *locked(&self.0)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        locked(&self.0).size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_keeps_its_turn_until_it_is_loaded() {
        let component = Component::from_request(Request::new(AnyBody::from("wasm")), &()).await;
        let Ok(component) = component else { panic!("refused") };
        assert_eq!(component.bytes, b"wasm");
        assert_eq!(COMPONENTS.available_permits(), COMPONENTS_MAX - 1);
        drop(component.turn);
        assert_eq!(COMPONENTS.available_permits(), COMPONENTS_MAX);
    }
}
