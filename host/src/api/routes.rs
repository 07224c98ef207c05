//! From requests to operations of the host, and from results and errors to answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use regraft_model::error_kind::ErrorKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::types::{
    ErrorBody, HostView, JobList, JobSummary, JobView, LogChunk, LogQuery, ModuleUploaded, Problem, SavepointRequest,
    SnapshotList, SnapshotReport, SnapshotRow, SubmitRequest, Submitted, TriggerStatus, Triggered, UpgradeReport,
    UpgradeRequest,
};
use crate::serve::error::HostError;
use crate::serve::host::Host;
use regraft_model::snapshot::SnapshotKind;

/// Largest component that can be uploaded, bytes.
const MODULE_BYTES_MAX: usize = 256 << 20;
/// Largest job that can be submitted, bytes.
const SUBMISSION_BYTES_MAX: usize = 16 << 20;

/// An HTTP server, which runs until [`Server::end`].
#[derive(Debug)]
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Rule for which requests are answered.
#[derive(Clone)]
pub struct Access {
    /// SHA-256 of the token that every request must have; `None` answers all requests from this machine.
    token: Option<[u8; 32]>,
}

impl Access {
    /// Returns the rule that every request must have the token, where there is one.
    #[must_use]
    pub fn new(token: Option<&str>) -> Self {
        Self {
            token: token.map(|token| Sha256::digest(token).into()),
        }
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        // Digests are compared, so that the time it takes tells nothing of the token.
        given.is_some_and(|token| <[u8; 32]>::from(Sha256::digest(token)) == expected)
    }
}

impl Server {
    /// Listens on an address; port 0 takes any free port.
    ///
    /// # Errors
    /// Those of the system, such as a port that is taken.
    pub async fn start(host: Arc<Host>, listen: SocketAddr, access: Access) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel();
        let serve = axum::serve(listener, router(host, access)).with_graceful_shutdown(async {
            let _ = ended.await;
        });
        let task = tokio::spawn(async {
            if let Err(error) = serve.await {
                tracing::error!("the API has ended: {error}");
            }
        });
        Ok(Self { address, end, task })
    }

    /// Ends the server. Requests under way have two seconds to finish.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.task).await;
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

/// A failure as an HTTP answer.
struct Refusal(ErrorBody);

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        Self((&error).into())
    }
}

impl From<Arc<HostError>> for Refusal {
    fn from(error: Arc<HostError>) -> Self {
        Self((&*error).into())
    }
}

impl From<JoinError> for Refusal {
    fn from(panicked: JoinError) -> Self {
        Self(ErrorBody::new(ErrorKind::Bug, panicked.to_string()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ErrorKind::Usage => StatusCode::BAD_REQUEST,
            ErrorKind::Failed | ErrorKind::Interrupted => StatusCode::CONFLICT,
            ErrorKind::Data | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(Problem { error: self.0 })).into_response()
    }
}

fn router(host: Arc<Host>, access: Access) -> Router {
    Router::new()
        .route("/host", get(itself))
        .route("/jobs", get(list))
        .route("/jobs", post(submit).layer(DefaultBodyLimit::max(SUBMISSION_BYTES_MAX)))
        .route("/jobs/{job}", get(info))
        .route("/jobs/{job}/logs", get(logs))
        .route("/jobs/{job}/snapshots", get(snapshots))
        .route("/jobs/{job}/savepoints", post(savepoint))
        .route("/jobs/{job}/savepoints/{trigger}", get(triggered))
        .route("/jobs/{job}/stop", post(stop))
        .route("/jobs/{job}/cancel", post(cancel))
        .route("/jobs/{job}/upgrade", post(upgrade))
        .route("/modules", put(upload).layer(DefaultBodyLimit::max(MODULE_BYTES_MAX)))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method")
        })
        .layer(from_fn_with_state(access, only_allowed))
        .layer(from_fn(no_foreign_pages))
        .with_state(host)
}

fn problem(status: StatusCode, message: impl Into<String>) -> Response {
    let error = ErrorBody::new(ErrorKind::Usage, message);
    (status, Json(Problem { error })).into_response()
}

/// JSON body of a request, of any content type; an empty body is `{}`. A malformed one is answered with a [`Problem`].
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| problem(rejection.status(), rejection.body_text()))?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(json).map(Self).map_err(|error| {
            problem(
                StatusCode::BAD_REQUEST,
                format!("the request's body is not the JSON that this path takes: {error}"),
            )
        })
    }
}

/// Query parameters of a request. Malformed ones are answered with a [`Problem`].
struct Parameters<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(problem(StatusCode::BAD_REQUEST, rejection.body_text())),
        }
    }
}

/// Refuses requests from web pages, which must not command a host on the same machine. Browsers send the page's origin, and
/// the client does not.
async fn no_foreign_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return problem(StatusCode::BAD_REQUEST, "requests from web pages are not answered");
    }
    next.run(request).await
}

/// Refuses requests without the token. Where there is none, refuses those that name this host by anything but an address:
/// a web page can have its own name resolve to it.
async fn only_allowed(State(access): State<Access>, request: Request, next: Next) -> Response {
    if !access.allows(request.headers()) {
        let message = "this host demands a token, and the request has not brought the right one: set REGRAFT_TOKEN to the host's, or send `Authorization: Bearer TOKEN`";
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (challenge, problem(StatusCode::UNAUTHORIZED, message)).into_response();
    }
    if access.token.is_none() && !names_an_address(request.headers()) {
        return problem(
            StatusCode::BAD_REQUEST,
            "this host is asked by its address, or as localhost",
        );
    }
    next.run(request).await
}

fn names_an_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn itself(State(host): State<Arc<Host>>) -> Json<HostView> {
    Json(HostView {
        pid: std::process::id(),
        data_dir: host.data_dir().display().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn list(State(host): State<Arc<Host>>) -> Json<JobList> {
    let jobs = host.entries();
    Json(JobList {
        jobs: jobs.iter().map(|job| JobSummary::from(job.observe())).collect(),
    })
}

async fn submit(State(host): State<Arc<Host>>, Body(request): Body<SubmitRequest>) -> Answer<Submitted> {
    // A task of its own goes on after the connection breaks: a job must not stay half submitted.
    let submitting = tokio::spawn(async move { host.submit(request.into()).await });
    Ok(Json(submitting.await??.into()))
}

async fn info(State(host): State<Arc<Host>>, Path(job): Path<String>) -> Answer<JobView> {
    Ok(Json(host.entry(&job)?.observe().into()))
}

async fn logs(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(query): Parameters<LogQuery>,
) -> Answer<LogChunk> {
    let reading = spawn_blocking(move || host.log(&job, query.into()));
    Ok(Json(reading.await??.into()))
}

async fn snapshots(State(host): State<Arc<Host>>, Path(job): Path<String>) -> Answer<SnapshotList> {
    let listed = host.snapshots(&job).await?;
    Ok(Json(SnapshotList {
        snapshots: listed.into_iter().map(SnapshotRow::from).collect(),
    }))
}

/// `?wait=true`: the answer is sent when the savepoint is complete.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wait {
    wait: bool,
}

async fn savepoint(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(Wait { wait }): Parameters<Wait>,
    Body(request): Body<SavepointRequest>,
) -> Result<Response, Refusal> {
    let job = host.job(&job)?;
    let (trigger_id, taking) = host.trigger(job, request.into(), SnapshotKind::Savepoint);
    if wait {
        let report = SnapshotReport::from(taking.await??);
        return Ok(Json(report).into_response());
    }
    Ok((StatusCode::ACCEPTED, Json(Triggered { trigger_id })).into_response())
}

async fn triggered(
    State(host): State<Arc<Host>>,
    Path((job, trigger)): Path<(String, String)>,
) -> Answer<TriggerStatus> {
    Ok(Json(host.triggered(&job, &trigger)?.into()))
}

async fn stop(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Body(request): Body<SavepointRequest>,
) -> Answer<SnapshotReport> {
    let job = host.job(&job)?;
    let (_, stopping) = host.trigger(job, request.into(), SnapshotKind::Stop);
    Ok(Json(stopping.await??.into()))
}

async fn cancel(State(host): State<Arc<Host>>, Path(job): Path<String>) -> Answer<JobView> {
    Ok(Json(host.cancel(&job).await?.into()))
}

async fn upload(State(host): State<Arc<Host>>, body: Bytes) -> Answer<ModuleUploaded> {
    let digest = spawn_blocking(move || host.upload(body.to_vec())).await??;
    Ok(Json(ModuleUploaded { digest }))
}

async fn upgrade(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Body(request): Body<UpgradeRequest>,
) -> Answer<UpgradeReport> {
    let job = host.job(&job)?;
    Ok(Json(host.upgrade(&job, request.modules).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a value"))])
    }

    #[test]
    fn a_token_is_demanded_where_there_is_one() {
        let (open, closed) = (Access::new(None), Access::new(Some("secret")));
        let with = |value| headers(header::AUTHORIZATION, value);
        assert!(open.allows(&HeaderMap::new()) && open.allows(&with("Bearer other")));
        assert!(closed.allows(&with("Bearer secret")));
        for wrong in ["Bearer secre", "Bearer secrets", "secret", "Basic secret", ""] {
            assert!(!closed.allows(&with(wrong)), "{wrong}");
        }
        assert!(!closed.allows(&HeaderMap::new()));
    }

    #[test]
    fn a_host_is_named_by_its_address() {
        for good in [
            "127.0.0.1:7878",
            "localhost",
            "LOCALHOST:1",
            "[::1]:7878",
            "[::1]",
            "10.0.0.1",
        ] {
            assert!(names_an_address(&headers(header::HOST, good)), "{good}");
        }
        for bad in [
            "evil.example:7878",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
        ] {
            assert!(!names_an_address(&headers(header::HOST, bad)), "{bad}");
        }
        assert!(names_an_address(&HeaderMap::new()));
    }
}
