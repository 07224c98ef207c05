//! `serve`: a host for many jobs. It ends on Ctrl-C, SIGTERM or SIGHUP, and the next host brings its jobs back.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::ServeArgs;
use super::build::engine;
use super::exit_status::ExitStatus;
use super::failure::Failure;
use super::log;
use super::output::{Output, print};
use super::signals::EndingSignals;
use crate::api::client::Client;
use crate::api::routes::{Access, Server};
use crate::dataflow::executor::Threads;
use crate::environment::real::RealEnvironment;
use crate::jobs::start::HostContext;
use crate::serve::announce::Announcement;
use crate::serve::catalog::Catalog;
use crate::serve::host::{Host, Serving};
use crate::serve::lock::HostLock;
use crate::serve::logs::JobLogs;
use crate::stdout;
use crate::storage::{LocalStores, Storage};

/// Time that a host which is ending may keep its port.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// Builds the context that a host on this machine gives to its jobs. `recovers`: the next host brings them back.
#[must_use]
pub fn host_context(data_dir: &Path, recovers: bool) -> HostContext {
    HostContext {
        environment: Arc::new(RealEnvironment::default()),
        stores: Arc::new(LocalStores::private_below(data_dir)),
        executor: Arc::new(Threads),
        checkpoint_dir: data_dir.join("checkpoints"),
        recovers,
    }
}

/// `regraft serve`. Log lines also go to `logs`.
///
/// # Errors
/// [`Failure`] where the data directory is in use or the address cannot be bound.
pub async fn serve(
    args: &ServeArgs,
    data_dir: &Path,
    output: Output,
    logs: Arc<JobLogs>,
) -> Result<ExitStatus, Failure> {
    let listen = address(&args.listen)?;
    let token = token(args, listen)?;
    let config = config(args, data_dir)?;
    if output.json {
        stdout::claim();
    }
    let (mut lock, waited) = HostLock::take_soon(data_dir).await?;
    let io = |error: std::io::Error| Failure::new(ErrorKind::Failed, format!("cannot serve: {error}"));
    let mut signals = EndingSignals::new().map_err(io)?;
    let catalog = Storage::open(&data_dir.join("jobs").to_string_lossy());
    let catalog = catalog.map_err(|error| Failure::new(ErrorKind::Failed, error.to_string()))?;
    let serving = Serving {
        catalog: Catalog::new(catalog.private()),
        logs,
        config,
        ending: std::sync::Mutex::new(false),
    };
    let host = Arc::new(Host::new(
        engine(data_dir)?,
        host_context(data_dir, true),
        Some(serving),
    ));
    let unfinished = host.open_catalog().await?;
    let server = match listening(&host, listen, token.as_deref(), waited).await {
        Ok(server) => server,
        Err(error) => return Err(taken(listen, &error, data_dir).await),
    };
    let url = format!("http://{}", server.address);
    lock.say(Some(&url))?;
    let announced = Announcement {
        job_id: None,
        name: None,
        pid: std::process::id(),
        url: url.clone(),
    }
    .publish(data_dir);
    if let Err(error) = &announced {
        let dir = data_dir.display();
        tracing::warn!("this host cannot be announced in {dir}: {error}; other terminals need --host {url}");
    }
    tracing::info!("Serving on {url}, with the data directory {}.", data_dir.display());
    if output.json {
        print(&json!({ "pid": std::process::id(), "url": url }).to_string());
        super::output::check()?;
    }
    if !unfinished.is_empty() {
        tracing::info!("Bringing back {} job(s).", unfinished.len());
    }
    let bringing = tokio::spawn({
        let host = host.clone();
        async move { host.bring_back(unfinished).await }
    });
    signals.any().await;
    log::line("ending: jobs are suspended, and the next `regraft serve` brings them back; Ctrl-C again ends at once");
    // From here on, clients no longer find this host.
    drop(announced);
    tokio::select! {
        () = host.end() => {}
        () = signals.any() => std::process::exit(ExitStatus::Interrupted.code().into()),
    }
    bringing.abort();
    server.end().await;
    drop(lock);
    Ok(ExitStatus::Done)
}

/// Starts the server. After a host that was just ending, its port may be free a moment later, too.
async fn listening(
    host: &Arc<Host>,
    listen: SocketAddr,
    token: Option<&str>,
    may_be_ending: bool,
) -> std::io::Result<Server> {
    let began = Instant::now();
    loop {
        match Server::start(host.clone(), listen, Access::new(token)).await {
            Err(error)
                if may_be_ending
                    && error.kind() == std::io::ErrorKind::AddrInUse
                    && began.elapsed() < PORT_PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            started => return started,
        }
    }
}

fn address(listen: &str) -> Result<SocketAddr, Failure> {
    let expected = |why: String| {
        Failure::usage(format!(
            "--listen {listen}: {why}; expected an address and a port, for example 127.0.0.1:7878"
        ))
    };
    let mut found = listen.to_socket_addrs().map_err(|error| expected(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| expected("there is no such address".to_owned()))
}

/// Returns the token that requests must carry. One is required where other machines can reach the address, since access
/// to the host is full control of it.
fn token(args: &ServeArgs, listen: SocketAddr) -> Result<Option<String>, Failure> {
    let token = match &args.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Failure {
                path: Some(path.display().to_string()),
                ..Failure::usage(format!("--token-file {}: {error}", path.display()))
            })?;
            let token = text.trim().to_owned();
            if token.is_empty() {
                return Err(Failure::usage(format!("--token-file {}: it is empty", path.display())));
            }
            Some(token)
        }
        None => std::env::var("REGRAFT_TOKEN").ok().filter(|token| !token.is_empty()),
    };
    if token.is_none() && !listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {}: other machines can reach this address, and each of them could control this host; set REGRAFT_TOKEN or --token-file, or listen on 127.0.0.1",
            args.listen
        )));
    }
    Ok(token)
}

fn config(args: &ServeArgs, data_dir: &Path) -> Result<Option<(PathBuf, String)>, Failure> {
    let (path, must) = match &args.config {
        Some(path) => (std::path::absolute(path).unwrap_or_else(|_| path.clone()), true),
        None => (data_dir.join("config.toml"), false),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => Ok(None),
        Err(error) => Err(Failure {
            path: Some(path.display().to_string()),
            ..Failure::usage(format!("cannot read {}: {error}", path.display()))
        }),
    }
}

/// Describes why the address cannot be had: who has it, as far as that answers, and what to do.
async fn taken(listen: SocketAddr, error: &std::io::Error, data_dir: &Path) -> Failure {
    let (client, url) = (Client::new(None, None, data_dir), format!("http://{listen}"));
    let asked = tokio::task::spawn_blocking(move || client.host_at(&url)).await;
    let other = asked.ok().flatten().map(|other| {
        format!(
            " It is that of another host (pid {}), whose data directory is {}: use that one with --host http://{listen}, or stop it.",
            other.pid, other.data_dir
        )
    });
    Failure::new(
        ErrorKind::Failed,
        format!(
            "cannot listen on {listen}: {error}.{} To serve {}, choose another port with --listen, for example --listen 127.0.0.1:0.",
            other.unwrap_or_default(),
            data_dir.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: &str, token_file: Option<&Path>) -> ServeArgs {
        ServeArgs {
            listen: listen.to_owned(),
            config: None,
            token_file: token_file.map(Path::to_owned),
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (full, empty) = (dir.path().join("token"), dir.path().join("empty"));
        std::fs::write(&full, "secret\n").expect("written");
        std::fs::write(&empty, "\n").expect("written");
        let token = |listen: &str, file| token(&args(listen, file), address(listen)?);
        assert_eq!(token("0.0.0.0:0", Some(&full)), Ok(Some("secret".to_owned())));
        assert_eq!(token("127.0.0.1:0", Some(&full)), Ok(Some("secret".to_owned())));
        if std::env::var_os("REGRAFT_TOKEN").is_none() {
            assert_eq!(token("127.0.0.1:0", None), Ok(None));
            assert_eq!(
                token("0.0.0.0:7878", None).expect_err("no token").message,
                "--listen 0.0.0.0:7878: other machines can reach this address, and each of them could control this host; set REGRAFT_TOKEN or --token-file, or listen on 127.0.0.1"
            );
        }
        let said = token("127.0.0.1:0", Some(&empty)).expect_err("no token").message;
        assert!(said.ends_with("empty: it is empty"), "{said}");
        for bad in ["127.0.0.1", "nowhere", "127.0.0.1:port"] {
            let said = address(bad).expect_err("no address").message;
            assert!(
                said.ends_with("expected an address and a port, for example 127.0.0.1:7878"),
                "{said}"
            );
        }
    }
}
