//! From requests to operations of the host, and from results and errors to answers.
//!
//! All routes are below `/api/v1`. Operations that take time are begun by one request, which is answered with 202 and where
//! to ask about it; with `?wait=true` it is answered with the result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use regraft_model::error_kind::ErrorKind;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::access::{Access, only_allowed};
use super::body::{Body, Component, Parameters, drained};
use super::connections::{self, url_of};
use super::problem::{Refusal, problem};
use super::types::{
    HostView, JobList, JobSummary, JobView, LogChunk, LogQuery, ModuleUploaded, OperationView, Outcome, ProfileRequest,
    SavepointRequest, SnapshotList, SnapshotRow, SubmitRequest, Submitted, TriggerStatus, Triggered, UpgradeRequest,
};
use crate::serve::error::HostError;
use crate::serve::host::Host;
use crate::serve::operations::Operation;

/// Prefix of all routes.
pub(super) const V1: &str = "/api/v1";
/// First parts of the paths of version 0.1, which had no prefix.
const BARE: [&str; 3] = ["host", "jobs", "modules"];
/// Longest time that a request may wait for the end of an operation, seconds.
const WAIT_MAX: u64 = 60;
/// Time that requests under way have to finish when the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// An address that is listened on. Requests wait until [`Listening::serve`].
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Listens on an address; port 0 takes any free port.
    ///
    /// # Errors
    /// Those of the system, such as a port that is taken.
    pub async fn on(listen: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Answers requests from now on.
    #[must_use]
    pub fn serve(self, host: Arc<Host>, access: Access) -> Server {
        let Self { listener, address } = self;
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(connections::serve(listener, router(host, access), ended));
        Server { address, end, task }
    }
}

/// An HTTP server, which runs until [`Server::end`].
#[derive(Debug)]
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Returns the URL by which this machine reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(self.address)
    }

    /// Ends the server. Requests under way have two seconds to finish.
    pub async fn end(self) {
        self.end.send_replace(true);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.task).await;
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

fn router(host: Arc<Host>, access: Access) -> Router {
    let v1 = Router::new()
        .route("/host", get(itself))
        .route("/jobs", get(list).post(submit))
        .route("/jobs/{job}", get(info))
        .route("/jobs/{job}/logs", get(logs))
        .route("/jobs/{job}/snapshots", get(snapshots))
        .route("/jobs/{job}/operations/{operation}", get(operation))
        .route("/jobs/{job}/savepoints", post(savepoint))
        .route("/jobs/{job}/savepoints/{operation}", get(triggered))
        .route("/jobs/{job}/stop", post(stop))
        .route("/jobs/{job}/cancel", post(cancel))
        .route("/jobs/{job}/upgrade", post(upgrade))
        .route("/jobs/{job}/profile", post(profile))
        .route("/modules", put(upload));
    Router::new()
        .nest(V1, v1)
        .fallback(elsewhere)
        .method_not_allowed_fallback(|| async {
            let message = "this path has no such method";
            problem(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Usage, message)
        })
        .layer(from_fn_with_state(access, only_allowed))
        .layer(from_fn(drained))
        .with_state(host)
}

/// Sends requests to the paths of version 0.1 on to those of today.
async fn elsewhere(uri: Uri) -> Response {
    let first = uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    if BARE.contains(&first)
        && let Some(path) = uri.path_and_query()
    {
        return (
            StatusCode::PERMANENT_REDIRECT,
            [(header::LOCATION, format!("{V1}{path}"))],
        )
            .into_response();
    }
    problem(StatusCode::NOT_FOUND, ErrorKind::Usage, "there is no such path")
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

/// `?wait=true`: the answer is sent when the operation is complete.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wait {
    wait: bool,
}

impl Wait {
    /// Answers a request that has begun an operation.
    async fn answer(self, mut operation: Operation) -> Result<Response, Refusal> {
        if self.wait {
            return Ok(Json(Outcome::from(operation.ended().await?)).into_response());
        }
        let place = format!("{V1}/jobs/{}/operations/{}", operation.job, operation.id);
        let begun = Triggered {
            trigger_id: operation.id,
            kind: operation.kind.into(),
        };
        Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(begun)).into_response())
    }
}

async fn savepoint(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(wait): Parameters<Wait>,
    Body(request): Body<SavepointRequest>,
) -> Result<Response, Refusal> {
    wait.answer(host.begin_savepoint(host.job(&job)?, request.into())).await
}

async fn stop(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(wait): Parameters<Wait>,
    Body(request): Body<SavepointRequest>,
) -> Result<Response, Refusal> {
    wait.answer(host.begin_stop(host.job(&job)?, request.into())).await
}

async fn cancel(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(wait): Parameters<Wait>,
) -> Result<Response, Refusal> {
    wait.answer(host.begin_cancel(&job)?).await
}

async fn upgrade(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(wait): Parameters<Wait>,
    Body(request): Body<UpgradeRequest>,
) -> Result<Response, Refusal> {
    wait.answer(host.begin_upgrade(host.job(&job)?, request.modules)).await
}

async fn profile(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Parameters(wait): Parameters<Wait>,
    Body(request): Body<ProfileRequest>,
) -> Result<Response, Refusal> {
    wait.answer(host.begin_profile(host.job(&job)?, request.into())).await
}

/// `?wait=SECONDS`: the answer is sent when the operation is complete, or after this time.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Patience {
    wait: u64,
}

async fn operation(
    State(host): State<Arc<Host>>,
    Path((job, id)): Path<(String, String)>,
    Parameters(Patience { wait }): Parameters<Patience>,
) -> Answer<OperationView> {
    let mut operation = host.operation(&job, &id)?;
    if wait > 0 {
        // How it has ended is in its progress.
        let _ = tokio::time::timeout(Duration::from_secs(wait.min(WAIT_MAX)), operation.ended()).await;
    }
    Ok(Json((&operation).into()))
}

async fn triggered(State(host): State<Arc<Host>>, Path((job, id)): Path<(String, String)>) -> Answer<TriggerStatus> {
    let progress = host.operation(&job, &id)?.progress();
    let status = TriggerStatus::of(progress).ok_or(HostError::NoSuchOperation { job, id })?;
    Ok(Json(status))
}

async fn upload(State(host): State<Arc<Host>>, Component { bytes, turn }: Component) -> Answer<ModuleUploaded> {
    // The turn ends with the loading, which goes on after the connection breaks.
    let loading = move || {
        let loaded = host.upload(bytes);
        tokio::spawn(async move { host.drop_old_uploads().await });
        drop(turn);
        loaded
    };
    let digest = spawn_blocking(loading).await??;
    Ok(Json(ModuleUploaded { digest }))
}
