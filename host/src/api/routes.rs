//! Paths to operations, and errors to HTTP statuses.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use regraft_model::error_kind::ErrorKind;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::host::Host;
use super::types::{JobList, JobSummary, ModuleUploaded, Problem, SavepointRequest, UpgradeRequest};
use crate::jobs::handle::{JobError, JobView, SnapshotReport};
use crate::upgrade::run::UpgradeReport;
use regraft_model::snapshot::SnapshotKind;

/// The largest component that can be uploaded, bytes.
const MODULE_BYTES_MAX: usize = 256 << 20;

/// A server that answers until it is told to end.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    end: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens on the loopback interface; port 0 is any free one.
    ///
    /// # Errors
    /// The system's, where the port is taken.
    pub async fn start(host: Arc<Host>, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel();
        let serve = axum::serve(listener, router(host)).with_graceful_shutdown(async {
            let _ = ended.await;
        });
        let task = tokio::spawn(async {
            if let Err(error) = serve.await {
                tracing::error!("the API has ended: {error}");
            }
        });
        Ok(Self { address, end, task })
    }

    /// Lets requests under way finish, for a moment.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.task).await;
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

/// A failure as an HTTP answer.
struct Refusal(JobError);

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        Self(error)
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

fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{job}", get(info))
        .route("/jobs/{job}/savepoints", post(savepoint))
        .route("/jobs/{job}/stop", post(stop))
        .route("/jobs/{job}/cancel", post(cancel))
        .route("/jobs/{job}/upgrade", post(upgrade))
        .route("/modules", put(upload).layer(DefaultBodyLimit::max(MODULE_BYTES_MAX)))
        .layer(from_fn(no_foreign_pages))
        .with_state(host)
}

/// A page in a browser must not command a host on the same machine: browsers name the page's origin, our client does not.
async fn no_foreign_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return Refusal(JobError::usage("requests from web pages are not answered")).into_response();
    }
    next.run(request).await
}

async fn list(State(host): State<Arc<Host>>) -> Json<JobList> {
    Json(JobList {
        jobs: host
            .jobs()
            .iter()
            .map(|job| JobSummary::from(&job.shared.view()))
            .collect(),
    })
}

async fn info(State(host): State<Arc<Host>>, Path(job): Path<String>) -> Answer<JobView> {
    Ok(Json(host.job(&job)?.shared.view()))
}

async fn savepoint(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Json(request): Json<SavepointRequest>,
) -> Answer<SnapshotReport> {
    let job = host.job(&job)?;
    Ok(Json(host.savepoint(&job, request, SnapshotKind::Savepoint).await?))
}

async fn stop(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Json(request): Json<SavepointRequest>,
) -> Answer<SnapshotReport> {
    let job = host.job(&job)?;
    let report = host.savepoint(&job, request, SnapshotKind::Stop).await?;
    job.done().await;
    Ok(Json(report))
}

async fn cancel(State(host): State<Arc<Host>>, Path(job): Path<String>) -> Answer<JobView> {
    let job = host.job(&job)?;
    job.cancel();
    job.done().await;
    Ok(Json(job.shared.view()))
}

async fn upload(State(host): State<Arc<Host>>, body: axum::body::Bytes) -> Answer<ModuleUploaded> {
    let loaded = tokio::task::spawn_blocking(move || host.upload(body.to_vec())).await;
    let digest = loaded.map_err(|error| JobError::failed(error.to_string()))??;
    Ok(Json(ModuleUploaded { digest }))
}

async fn upgrade(
    State(host): State<Arc<Host>>,
    Path(job): Path<String>,
    Json(request): Json<UpgradeRequest>,
) -> Answer<UpgradeReport> {
    let job = host.job(&job)?;
    Ok(Json(host.upgrade(&job, request).await?))
}
