//! The other end: finds the host of a job, and asks.

use std::path::Path;
use std::time::Duration;

use regraft_model::error_kind::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::announce;
use super::types::{JobList, JobSummary, ModuleUploaded, Problem, SavepointRequest, UpgradeRequest};
use crate::jobs::handle::{JobError, JobView, SnapshotReport};
use crate::upgrade::run::UpgradeReport;

/// How long a connection may take; an operation takes what it takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks hosts.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    /// The hosts that are asked, and whether the user named them.
    hosts: Vec<String>,
    named: bool,
}

/// A job found on a host.
#[derive(Debug, Clone)]
pub struct FoundJob {
    /// The host.
    pub host: String,
    /// The job.
    pub summary: JobSummary,
}

impl Client {
    /// Asks the named host, or else every live one announced in the data directory.
    #[must_use]
    pub fn new(host: Option<&str>, data_dir: &Path) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let hosts = match host {
            Some(host) => vec![normal(host)],
            None => announce::live(data_dir)
                .into_iter()
                .map(|announcement| announcement.url)
                .collect(),
        };
        Self {
            agent: config.new_agent(),
            hosts,
            named: host.is_some(),
        }
    }

    /// All jobs of all hosts.
    ///
    /// # Errors
    /// [`JobError`] where a named host does not answer. One that was only announced may have just ended.
    pub fn jobs(&self) -> Result<Vec<FoundJob>, JobError> {
        let mut found = vec![];
        for host in &self.hosts {
            let list: Result<JobList, JobError> = self.get(&format!("{host}/jobs"));
            match list {
                Ok(list) => found.extend(list.jobs.into_iter().map(|summary| FoundJob {
                    host: host.clone(),
                    summary,
                })),
                Err(error) if self.named => return Err(error),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        Ok(found)
    }

    /// The job of an id, a unique prefix of it, or a name.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where there is none, or several.
    pub fn find(&self, job: &str) -> Result<FoundJob, JobError> {
        let jobs = self.jobs()?;
        let by_id: Vec<&FoundJob> = jobs.iter().filter(|j| j.summary.job_id.to_string() == job).collect();
        let prefix = !job.is_empty() && job.bytes().all(|b| b.is_ascii_hexdigit());
        let matching = if by_id.is_empty() {
            let is = |j: &&FoundJob| j.summary.name == job || prefix && j.summary.job_id.to_string().starts_with(job);
            jobs.iter().filter(is).collect()
        } else {
            by_id
        };
        match matching[..] {
            [found] => Ok(found.clone()),
            [] => {
                let known = if jobs.is_empty() {
                    "no job is running".to_owned()
                } else {
                    format!("running:\n{}", lines(&jobs))
                };
                Err(JobError::usage(format!(
                    "there is no job {job:?}; expected an id, a unique prefix of one, or a name; {known}"
                )))
            }
            _ => {
                let candidates: Vec<FoundJob> = matching.into_iter().cloned().collect();
                Err(JobError::usage(format!(
                    "{job:?} names several jobs; give more of the id:\n{}",
                    lines(&candidates)
                )))
            }
        }
    }

    /// All about a job.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn info(&self, job: &FoundJob) -> Result<JobView, JobError> {
        self.get(&job.url(""))
    }

    /// Takes a savepoint.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on.
    pub fn savepoint(&self, job: &FoundJob, request: &SavepointRequest) -> Result<SnapshotReport, JobError> {
        self.post(&job.url("/savepoints"), request)
    }

    /// Takes a savepoint and ends the job; returns when it has ended.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on.
    pub fn stop(&self, job: &FoundJob, request: &SavepointRequest) -> Result<SnapshotReport, JobError> {
        self.post(&job.url("/stop"), request)
    }

    /// Ends the job at once; returns when it has ended.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn cancel(&self, job: &FoundJob) -> Result<JobView, JobError> {
        self.post(&job.url("/cancel"), &())
    }

    /// Hands a component to the job's host, which loads and compiles it.
    ///
    /// # Errors
    /// [`JobError`] of kind usage where it is none that the host runs.
    pub fn upload(&self, job: &FoundJob, component: &[u8]) -> Result<ModuleUploaded, JobError> {
        let url = format!("{}/modules", job.host);
        let sent = self.agent.put(&url).content_type("application/wasm").send(component);
        answer(&url, sent)
    }

    /// Swaps uploaded components in.
    ///
    /// # Errors
    /// [`JobError`]; the job goes on as it was.
    pub fn upgrade(&self, job: &FoundJob, request: &UpgradeRequest) -> Result<UpgradeReport, JobError> {
        self.post(&job.url("/upgrade"), request)
    }

    fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, JobError> {
        answer(url, self.agent.get(url).call())
    }

    fn post<T: DeserializeOwned>(&self, url: &str, body: &impl Serialize) -> Result<T, JobError> {
        answer(url, self.agent.post(url).send_json(body))
    }
}

impl FoundJob {
    fn url(&self, rest: &str) -> String {
        format!("{}/jobs/{}{rest}", self.host, self.summary.job_id)
    }
}

type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn answer<T: DeserializeOwned>(url: &str, sent: Sent) -> Result<T, JobError> {
    let failed = |what: String| JobError::failed(format!("{url}: {what}; is the host still running?"));
    let mut response = sent.map_err(|error| failed(error.to_string()))?;
    let ok = response.status().is_success();
    let text = response
        .body_mut()
        .read_to_string()
        .map_err(|error| failed(error.to_string()))?;
    if ok {
        return serde_json::from_str(&text).map_err(|error| {
            failed(format!(
                "the answer is not understood ({error}); are both the same version?"
            ))
        });
    }
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => Err(problem.error),
        Err(_) => Err(JobError {
            kind: ErrorKind::Failed,
            ..failed(format!("HTTP {}: {text}", response.status()))
        }),
    }
}

fn normal(host: &str) -> String {
    let host = host.trim_end_matches('/');
    if host.contains("://") {
        host.to_owned()
    } else {
        format!("http://{host}")
    }
}

fn lines(jobs: &[FoundJob]) -> String {
    let line = |job: &FoundJob| format!("  {}  {}  {}", job.summary.job_id, job.summary.name, job.summary.status);
    jobs.iter().map(line).collect::<Vec<_>>().join("\n")
}
