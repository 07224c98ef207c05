//! The other end: finds the host of a job, and sends it requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regraft_model::error_kind::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::StatusCode;

use super::access::{CHALLENGE, Token};
use super::routes::V1;
use super::types::{
    ErrorBody, HostView, JobList, JobSummary, JobView, LogChunk, LogQuery, ModuleUploaded, Problem, ProfileReport,
    ProfileRequest, SavepointRequest, SnapshotList, SnapshotReport, SubmitRequest, Submitted, UpgradeReport,
    UpgradeRequest,
};
use crate::graph::suggest::nearest;
use crate::serve::announce::{self, Announcement};

/// Time that a connection may take; an operation may take any time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read, bytes. The answer to `info` grows with the subtasks of the job.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Time that an answer to a `GET` may take. A host whose process is stopped accepts connections and never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a host may take to say who it is.
const AT_ONCE: Duration = Duration::from_secs(1);
/// URL of a host that serves where nothing else is said.
const USUAL_HOST: &str = "http://127.0.0.1:7878";

/// Client of one or more hosts.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    /// URLs of the hosts.
    hosts: Vec<String>,
    /// True if every host must answer, as one that the user named.
    named: bool,
    /// URL of the host that takes jobs.
    serving: Option<String>,
    /// Token of each host, by URL. A token goes to no other place.
    tokens: BTreeMap<String, Token>,
    /// Data directory of this machine's hosts.
    data_dir: PathBuf,
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No host serves the data directory.
    #[error(
        "no host serves the data directory {}: start one with {}, or name one with --host URL.{}",
        data_dir.display(),
        if other.is_some() { "`regraft serve --listen 127.0.0.1:0`" } else { "`regraft serve`" },
        other.as_ref().map(elsewhere).unwrap_or_default()
    )]
    NotServing {
        /// The data directory.
        data_dir: PathBuf,
        /// The host that has the usual address, and serves another one.
        other: Option<OtherHost>,
    },
    /// The host does not answer.
    #[error("{url}: {source}; is the host still running?")]
    NoAnswer {
        /// URL of the request.
        url: String,
        /// Error of the connection.
        source: ureq::Error,
    },
    /// Hosts are announced in the data directory, and none of them answers.
    #[error(
        "none of the hosts that are announced in the data directory {} answers, so their jobs are not known:\n{}",
        data_dir.display(),
        silent.iter().map(|host| format!("  {host}")).collect::<Vec<_>>().join("\n")
    )]
    NoneAnswers {
        /// The data directory.
        data_dir: PathBuf,
        /// Each host, with why it does not answer.
        silent: Vec<String>,
    },
    /// The answer does not have the expected shape.
    #[error(
        "{url}: the answer is not understood ({source}); are both the same version, and is the host still running?"
    )]
    NotUnderstood {
        /// URL of the request.
        url: String,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// The request failed, and the answer is not one of a host.
    #[error("{url}: HTTP {status}: {text}; is the host still running?")]
    Http {
        /// URL of the request.
        url: String,
        /// Status of the answer.
        status: StatusCode,
        /// Its body.
        text: String,
    },
    /// The host answered that the request failed.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The host answered that it has no such job: it has dropped it since it was found.
    #[error(transparent)]
    Gone(ErrorBody),
    /// No job matches.
    #[error("there is no job {job:?}; expected an id, a unique prefix of one, or a name; {}", known(near.as_deref(), running))]
    NoSuchJob {
        /// Id, prefix or name that was asked for.
        job: String,
        /// A similar name of a running job.
        near: Option<String>,
        /// Jobs that run.
        running: Vec<FoundJob>,
    },
    /// Several jobs match.
    #[error("{job:?} names several jobs; give more of the id:\n{}", lines(candidates))]
    SeveralJobs {
        /// Prefix or name that was asked for.
        job: String,
        /// Jobs that match.
        candidates: Vec<FoundJob>,
    },
}

impl ClientError {
    /// Returns its kind, which says what its reader does next.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchJob { .. } | Self::SeveralJobs { .. } => ErrorKind::Usage,
            Self::Refused(error) | Self::Gone(error) => error.kind,
            Self::NotServing { .. }
            | Self::NoAnswer { .. }
            | Self::NoneAnswers { .. }
            | Self::NotUnderstood { .. }
            | Self::Http { .. } => ErrorKind::Failed,
        }
    }
}

/// A host that has an address which was expected to be free, or to be this data directory's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherHost {
    /// It says who it is.
    Known(HostView),
    /// It demands a token that is not known here.
    Locked,
}

/// A job found on a host.
#[derive(Debug, Clone)]
pub struct FoundJob {
    /// URL of the host.
    pub host: String,
    /// Summary of the job.
    pub summary: JobSummary,
}

impl Client {
    /// Returns a client of the named host, or else of every live one that is announced in the data directory.
    ///
    /// A named host gets `token`, or else the one that it has announced in the data directory; the others get the one that
    /// they have announced.
    #[must_use]
    pub fn new(host: Option<&str>, token: Option<&str>, data_dir: &Path) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        let live = announce::live(data_dir);
        let host = host.map(|host| announced_as(normal(host), &live));
        let announced = live
            .iter()
            .filter_map(|live| Some((live.url.clone(), Token::new(live.token.clone()?))));
        let mut tokens: BTreeMap<String, Token> = announced.collect();
        if let (Some(host), Some(token)) = (&host, token) {
            tokens.insert(host.clone(), Token::new(token));
        }
        let serves = live.iter().find(|announcement| announcement.job_id.is_none());
        let serving = host.clone().or_else(|| serves.map(|host| host.url.clone()));
        let named = host.is_some();
        Self {
            agent: config.new_agent(),
            hosts: host.map_or_else(|| live.into_iter().map(|live| live.url).collect(), |host| vec![host]),
            named,
            serving,
            tokens,
            data_dir: data_dir.to_owned(),
        }
    }

    /// Fails where a host does not answer, in place of leaving out its jobs.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { named: true, ..self }
    }

    /// Returns the URL of the host that takes jobs.
    ///
    /// # Errors
    /// [`ClientError`] where there is no such host.
    pub fn serving(&self) -> Result<&str, ClientError> {
        self.serving.as_deref().ok_or_else(|| self.not_serving())
    }

    /// Returns the error that no host serves the data directory. It names one of another data directory, if that has the
    /// usual address: a `serve` of this one would not get it.
    fn not_serving(&self) -> ClientError {
        ClientError::NotServing {
            data_dir: self.data_dir.clone(),
            other: self.host_at(USUAL_HOST),
        }
    }

    /// Asks the host at an address for itself; `None` where none answers at once.
    #[must_use]
    pub fn host_at(&self, url: &str) -> Option<OtherHost> {
        let request = self.known(url, self.agent.get(format!("{url}{V1}/host")));
        let sent = request.config().timeout_global(Some(AT_ONCE)).build().call();
        if let Ok(response) = &sent
            && response.status() == StatusCode::UNAUTHORIZED
        {
            let challenge = response.headers().get("www-authenticate");
            return (challenge? == CHALLENGE).then_some(OtherHost::Locked);
        }
        answer(url, sent).ok().map(OtherHost::Known)
    }

    /// Submits a job whose components have been uploaded.
    ///
    /// # Errors
    /// [`ClientError`]; there is no such job then.
    pub fn submit(&self, submission: &SubmitRequest) -> Result<Submitted, ClientError> {
        let host = self.serving()?;
        self.post(host, "/jobs", submission)
    }

    /// Lists all jobs of all hosts. An announced host that does not answer is left out with a warning, unless it has ended
    /// meanwhile.
    ///
    /// # Errors
    /// [`ClientError`] where a named host does not answer, or where there are announced ones and none of them answers.
    pub fn jobs(&self) -> Result<Vec<FoundJob>, ClientError> {
        let (mut found, mut silent, mut answered) = (vec![], vec![], false);
        for host in &self.hosts {
            match self.get::<JobList>(host, "/jobs") {
                Ok(list) => {
                    answered = true;
                    found.extend(list.jobs.into_iter().map(|summary| FoundJob {
                        host: host.clone(),
                        summary,
                    }));
                }
                Err(error) if self.named || matches!(error, ClientError::Refused(_)) => return Err(error),
                Err(error) if self.is_announced(host) => silent.push(silence(host, &error)),
                Err(error) => tracing::debug!("a host has just ended: {error}"),
            }
        }
        if !answered && !silent.is_empty() {
            return Err(ClientError::NoneAnswers {
                data_dir: self.data_dir.clone(),
                silent,
            });
        }
        for host in silent {
            tracing::warn!("the jobs of a host are left out: {host}");
        }
        Ok(found)
    }

    /// Returns true if a live process announces this host now.
    fn is_announced(&self, host: &str) -> bool {
        announce::live(&self.data_dir).iter().any(|live| live.url == host)
    }

    /// Finds a job by its id, a unique prefix of it, or its name. An ended job is found only where no other matches.
    ///
    /// # Errors
    /// [`ClientError`] where no job matches, or several do.
    pub fn find(&self, job: &str) -> Result<FoundJob, ClientError> {
        let mut jobs = self.jobs()?;
        // Flink's documents write `:jobId` where an id belongs, and people type the colon, too.
        let job = match job.strip_prefix(':') {
            Some(bare) if !jobs.iter().any(|j| j.summary.name == job) => bare,
            _ => job,
        };
        let by_id: Vec<&FoundJob> = jobs.iter().filter(|j| j.summary.job_id.to_string() == job).collect();
        let prefix = !job.is_empty() && job.bytes().all(|b| b.is_ascii_hexdigit());
        let mut matching: Vec<&FoundJob> = if by_id.is_empty() {
            let is = |j: &&FoundJob| j.summary.name == job || prefix && j.summary.job_id.to_string().starts_with(job);
            jobs.iter().filter(is).collect()
        } else {
            by_id
        };
        if matching.iter().any(|j| !j.summary.status.is_over()) {
            matching.retain(|j| !j.summary.status.is_over());
        }
        match matching[..] {
            [found] => Ok(found.clone()),
            [] => {
                jobs.retain(|j| !j.summary.status.is_over());
                let names: Vec<&str> = jobs.iter().map(|j| j.summary.name.as_str()).collect();
                Err(ClientError::NoSuchJob {
                    job: job.to_owned(),
                    near: nearest(job, &names).map(str::to_owned),
                    running: jobs,
                })
            }
            _ => Err(ClientError::SeveralJobs {
                job: job.to_owned(),
                candidates: matching.into_iter().cloned().collect(),
            }),
        }
    }

    /// Describes a job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn info(&self, job: &FoundJob) -> Result<JobView, ClientError> {
        self.get(&job.host, &job.path(""))
    }

    /// Takes a savepoint.
    ///
    /// # Errors
    /// [`ClientError`]; the job goes on.
    pub fn savepoint(&self, job: &FoundJob, request: &SavepointRequest) -> Result<SnapshotReport, ClientError> {
        self.post(&job.host, &job.path("/savepoints?wait=true"), request)
    }

    /// Takes a savepoint and ends the job; returns when it has ended.
    ///
    /// # Errors
    /// [`ClientError`]; the job goes on.
    pub fn stop(&self, job: &FoundJob, request: &SavepointRequest) -> Result<SnapshotReport, ClientError> {
        self.post(&job.host, &job.path("/stop?wait=true"), request)
    }

    /// Ends the job at once; returns when it has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel(&self, job: &FoundJob) -> Result<JobView, ClientError> {
        self.post(&job.host, &job.path("/cancel?wait=true"), &())
    }

    /// Lists the job's checkpoints and savepoints.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn snapshots(&self, job: &FoundJob) -> Result<SnapshotList, ClientError> {
        self.get(&job.host, &job.path("/snapshots"))
    }

    /// Reads lines of the job's log: the last ones, or those from a position on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn logs(&self, job: &FoundJob, query: &LogQuery) -> Result<LogChunk, ClientError> {
        let query = match (query.from, query.lines) {
            (Some(from), _) => format!("?from={from}"),
            (None, Some(lines)) => format!("?lines={lines}"),
            (None, None) => String::new(),
        };
        self.get(&job.host, &job.path(&format!("/logs{query}")))
    }

    /// Uploads a component to a host, which loads and compiles it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where the host cannot run it.
    pub fn upload(&self, host: &str, component: &[u8]) -> Result<ModuleUploaded, ClientError> {
        let url = url(host, "/modules");
        let request = self.agent.put(&url).content_type("application/wasm");
        answer(&url, self.known(host, request).send(component))
    }

    /// Swaps uploaded components in.
    ///
    /// # Errors
    /// [`ClientError`]; the job goes on as it was.
    pub fn upgrade(&self, job: &FoundJob, request: &UpgradeRequest) -> Result<UpgradeReport, ClientError> {
        self.post(&job.host, &job.path("/upgrade?wait=true"), request)
    }

    /// Samples the guest of an operator; returns when the time is over, or the job has ended.
    ///
    /// # Errors
    /// [`ClientError`]; the job goes on as it was.
    pub fn profile(&self, job: &FoundJob, request: &ProfileRequest) -> Result<ProfileReport, ClientError> {
        self.post(&job.host, &job.path("/profile?wait=true"), request)
    }

    fn get<T: DeserializeOwned>(&self, host: &str, path: &str) -> Result<T, ClientError> {
        answer(&url(host, path), self.sent(host, path))
    }

    fn sent(&self, host: &str, path: &str) -> Sent {
        let request = self.known(host, self.agent.get(url(host, path)));
        request.config().timeout_global(Some(ANSWER_TIMEOUT)).build().call()
    }

    /// Adds the token of a host to a request to it.
    fn known<B>(&self, host: &str, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match self.tokens.get(host) {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.text())),
            None => request,
        }
    }

    fn post<T: DeserializeOwned>(&self, host: &str, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let url = url(host, path);
        answer(&url, self.known(host, self.agent.post(&url)).send_json(body))
    }
}

impl FoundJob {
    fn path(&self, rest: &str) -> String {
        format!("/jobs/{}{rest}", self.summary.job_id)
    }
}

fn url(host: &str, path: &str) -> String {
    format!("{host}{V1}{path}")
}

type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn answer<T: DeserializeOwned>(url: &str, sent: Sent) -> Result<T, ClientError> {
    let url = url.to_owned();
    let read = sent.and_then(|mut response| {
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let text = body.read_to_string()?;
        Ok((response.status(), text))
    });
    let (status, text) = match read {
        Ok(read) => read,
        Err(source) => return Err(ClientError::NoAnswer { url, source }),
    };
    if status.is_success() {
        return serde_json::from_str(&text).map_err(|source| ClientError::NotUnderstood { url, source });
    }
    match serde_json::from_str::<Problem>(&text) {
        // The only other answer with this status is about an operation, and this client asks for none.
        Ok(problem) if status == StatusCode::NOT_FOUND => Err(ClientError::Gone(problem.error)),
        Ok(problem) => Err(problem.error.into()),
        Err(_) => Err(ClientError::Http { url, status, text }),
    }
}

/// Says why an announced host has not answered, and what to do.
fn silence(host: &str, error: &ClientError) -> String {
    match error {
        ClientError::NoAnswer {
            source: ureq::Error::Timeout(_),
            ..
        } => format!(
            "the host at {host} does not answer; is its process stopped? (`fg` brings back what Ctrl-Z has stopped)"
        ),
        error => format!("the host at {host} does not answer: {error}"),
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

/// Returns the URL that a host of this machine is announced by, if the user means one: `localhost` may resolve to an address
/// where another program listens.
fn announced_as(host: String, live: &[Announcement]) -> String {
    let Some(port) = host.strip_prefix("http://localhost:") else {
        return host;
    };
    let local = format!("http://127.0.0.1:{port}");
    if live.iter().any(|live| live.url == local) {
        local
    } else {
        host
    }
}

/// Names the host that has the usual address.
fn elsewhere(host: &OtherHost) -> String {
    let OtherHost::Known(HostView { data_dir, pid, .. }) = host else {
        return format!(
            " One whose token is not in this data directory listens on {USUAL_HOST}: if that one is meant, set REGRAFT_DATA to its directory, or name it with --host {USUAL_HOST} and its token with REGRAFT_TOKEN."
        );
    };
    format!(
        " One that serves {data_dir} listens on {USUAL_HOST} (pid {pid}): if that one is meant, name it with --host {USUAL_HOST}, or set REGRAFT_DATA to its directory."
    )
}

/// Lists the jobs that run, with the one that may be meant.
fn known(near: Option<&str>, running: &[FoundJob]) -> String {
    if running.is_empty() {
        return "no job is running".to_owned();
    }
    let near = near.map(|near| format!("did you mean {near:?}? "));
    format!("{}running:\n{}", near.unwrap_or_default(), lines(running))
}

fn lines(jobs: &[FoundJob]) -> String {
    let line = |job: &FoundJob| format!("  {}  {}  {}", job.summary.job_id, job.summary.name, job.summary.status);
    jobs.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_long_answer_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            let _ = stream.read(&mut [0; 4096]).expect("its head");
            let body = format!(r#"{{"jobs":[]{}}}"#, " ".repeat(11 << 20));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).expect("answered");
        });
        let dir = tempfile::tempdir().expect("temp dir");
        let found = Client::new(Some(&host), None, dir.path()).jobs().expect("an answer");
        assert!(found.is_empty());
        answering.join().expect("no panic");
    }

    #[test]
    fn a_token_goes_only_to_the_host_that_is_announced_with_it_or_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let announcement = Announcement {
            job_id: None,
            name: None,
            pid: std::process::id(),
            url: "http://127.0.0.1:7878".to_owned(),
            token: Some("announced".to_owned()),
            process: None,
        };
        let published = announcement.publish(dir.path()).expect("written");
        let tokens = |host, token| {
            let client = Client::new(host, token, dir.path());
            let of = |host: &String| {
                (
                    host.clone(),
                    client.tokens.get(host).map(|token| token.text().to_owned()),
                )
            };
            client.hosts.iter().map(of).collect::<Vec<_>>()
        };
        let is = |host: &str, token: Option<&str>| vec![(host.to_owned(), token.map(str::to_owned))];
        let here = "http://127.0.0.1:7878";
        for named in [None, Some(here), Some("127.0.0.1:7878/"), Some("localhost:7878")] {
            assert_eq!(tokens(named, None), is(here, Some("announced")), "{named:?}");
        }
        assert_eq!(tokens(None, Some("given")), is(here, Some("announced")));
        assert_eq!(tokens(Some(here), Some("given")), is(here, Some("given")));
        for elsewhere in [
            "http://127.0.0.1:7879",
            "http://localhost:7879",
            "https://127.0.0.1:7878",
            "http://127.0.0.1:78780",
        ] {
            assert_eq!(tokens(Some(elsewhere), None), is(elsewhere, None));
            assert_eq!(tokens(Some(elsewhere), Some("given")), is(elsewhere, Some("given")));
        }
        drop(published);
        assert_eq!(tokens(Some(here), None), is(here, None));
    }

    #[test]
    fn every_error_has_its_text() {
        let url = || "http://h/jobs".to_owned();
        let serving = |other| ClientError::NotServing {
            data_dir: "/data".into(),
            other,
        };
        let other = HostView {
            pid: 9,
            data_dir: "/other".to_owned(),
            version: "1".to_owned(),
        };
        let http = ClientError::Http {
            url: url(),
            status: StatusCode::BAD_GATEWAY,
            text: "no".to_owned(),
        };
        let garbage = || serde_json::from_str::<HostView>("[").expect_err("no host");
        let garbled = ClientError::NotUnderstood {
            url: url(),
            source: garbage(),
        };
        let source = ClientError::NoAnswer {
            url: url(),
            source: ureq::Error::HostNotFound,
        };
        let job = FoundJob {
            host: "http://h".to_owned(),
            summary: serde_json::from_str(
                r#"{"job_id":"00000000000000000000000000000007","name":"words","status":"RUNNING","parallelism":1,"started_at":0,"restored_from":null,"version":1}"#,
            )
            .expect("a job"),
        };
        let missing = |near: Option<&str>, running: &[FoundJob]| ClientError::NoSuchJob {
            job: "wodrs".to_owned(),
            near: near.map(str::to_owned),
            running: running.to_vec(),
        };
        let several = ClientError::SeveralJobs {
            job: "wo".to_owned(),
            candidates: vec![job.clone()],
        };
        let line = "  00000000000000000000000000000007  words  RUNNING";
        for (error, text) in [
            (serving(None), "no host serves the data directory /data: start one with `regraft serve`, or name one with --host URL.".to_owned()),
            (serving(Some(OtherHost::Known(other))), "no host serves the data directory /data: start one with `regraft serve --listen 127.0.0.1:0`, or name one with --host URL. One that serves /other listens on http://127.0.0.1:7878 (pid 9): if that one is meant, name it with --host http://127.0.0.1:7878, or set REGRAFT_DATA to its directory.".to_owned()),
            (serving(Some(OtherHost::Locked)), "no host serves the data directory /data: start one with `regraft serve --listen 127.0.0.1:0`, or name one with --host URL. One whose token is not in this data directory listens on http://127.0.0.1:7878: if that one is meant, set REGRAFT_DATA to its directory, or name it with --host http://127.0.0.1:7878 and its token with REGRAFT_TOKEN.".to_owned()),
            (source, format!("http://h/jobs: {}; is the host still running?", ureq::Error::HostNotFound)),
            (ClientError::NoneAnswers { data_dir: "/data".into(), silent: vec!["a".to_owned(), "b".to_owned()] }, "none of the hosts that are announced in the data directory /data answers, so their jobs are not known:\n  a\n  b".to_owned()),
            (http, "http://h/jobs: HTTP 502 Bad Gateway: no; is the host still running?".to_owned()),
            (garbled, format!("http://h/jobs: the answer is not understood ({}); are both the same version, and is the host still running?", garbage())),
            (ErrorBody::new(ErrorKind::Bug, "no").into(), "no".to_owned()),
            (ClientError::Gone(ErrorBody::new(ErrorKind::Usage, "gone")), "gone".to_owned()),
            (missing(None, &[]), "there is no job \"wodrs\"; expected an id, a unique prefix of one, or a name; no job is running".to_owned()),
            (missing(Some("words"), std::slice::from_ref(&job)), format!("there is no job \"wodrs\"; expected an id, a unique prefix of one, or a name; did you mean \"words\"? running:\n{line}")),
            (several, format!("\"wo\" names several jobs; give more of the id:\n{line}")),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
