//! `serve`: a host for many jobs. It ends on Ctrl-C, SIGTERM or SIGHUP, and the next host brings its jobs back.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::JobId;
use serde_json::json;

use super::args::{ServeArgs, WorkerArgs};
use super::build::engine;
use super::exit_status::ExitStatus;
use super::failure::Failure;
use super::log;
use super::output::{Output, print};
use super::signals::EndingSignals;
use crate::api::access::{Access, Token};
use crate::api::client::{Client, OtherHost};
use crate::api::routes::Listening;
use crate::dataflow::workers::Workers;
use crate::environment::process::ProcessIdentity;
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

/// Shortest token of an address that other machines can reach, characters.
const TOKEN_LEN_MIN: usize = 16;

/// Builds the context that a host on this machine gives to its jobs. `recovers`: the next host brings them back.
#[must_use]
pub fn host_context(data_dir: &Path, workers: &WorkerArgs, recovers: bool) -> HostContext {
    let workers = workers.workers.map_or_else(Workers::default, Workers::new);
    HostContext {
        environment: Arc::new(RealEnvironment::default()),
        stores: Arc::new(LocalStores::private_below(data_dir)),
        executor: Arc::new(workers),
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
    let tokens = tokens(args, listen)?;
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
        host_context(data_dir, &args.workers, true),
        Some(serving),
    ));
    // Before the catalog is opened: a host that cannot listen has not run, and must not count as one that died.
    let listening = match listening(listen, waited).await {
        Ok(listening) => listening,
        Err(error) => return Err(taken(listen, &error, data_dir).await),
    };
    let unfinished = host.open_catalog().await?;
    let server = listening.serve(host.clone(), Access::new(&tokens.admin, tokens.read.as_ref()));
    let url = server.url();
    lock.say(Some(&url));
    let announced = announcement(None, &url, &tokens.admin).publish(data_dir);
    if let Err(error) = &announced {
        let dir = data_dir.display();
        tracing::warn!(
            "this host cannot be announced in {dir}: {error}; other terminals need --host {url} and its token"
        );
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
        () = signals.any() => {
            log::flush();
            std::process::exit(ExitStatus::Interrupted.code().into())
        }
    }
    bringing.abort();
    server.end().await;
    drop(lock);
    Ok(ExitStatus::Done)
}

/// Listens on an address. After a host that was just ending, its port may be free a moment later, too.
async fn listening(listen: SocketAddr, may_be_ending: bool) -> std::io::Result<Listening> {
    let began = Instant::now();
    loop {
        match Listening::on(listen).await {
            Err(error)
                if may_be_ending
                    && error.kind() == std::io::ErrorKind::AddrInUse
                    && began.elapsed() < PORT_PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tried => return tried,
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

/// Tokens that requests must carry.
#[derive(Debug, PartialEq, Eq)]
struct Tokens {
    /// The one that allows every request.
    admin: Token,
    /// The one that allows only reading.
    read: Option<Token>,
}

/// Returns the tokens that requests must carry. Without a given one, it is made anew, and found by this user's commands in
/// the data directory; those on other machines would not find it.
fn tokens(args: &ServeArgs, listen: SocketAddr) -> Result<Tokens, Failure> {
    let given = match &args.token_file {
        Some(path) => Some(token_in("--token-file", path)?),
        None => {
            let variable = std::env::var("REGRAFT_TOKEN").ok();
            let text = variable.filter(|token| !token.trim().is_empty());
            text.map(|text| checked("REGRAFT_TOKEN", &text)).transpose()?
        }
    };
    if given.is_none() && !listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {}: other machines can reach this address, and need a token that they know; set REGRAFT_TOKEN or --token-file, or listen on 127.0.0.1",
            args.listen
        )));
    }
    let read = args.read_token_file.as_deref();
    let tokens = Tokens {
        admin: given.unwrap_or_else(Token::random),
        read: read.map(|path| token_in("--read-token-file", path)).transpose()?,
    };
    if !listen.ip().is_loopback() {
        for (place, token) in [
            ("--token-file or REGRAFT_TOKEN", Some(&tokens.admin)),
            ("--read-token-file", tokens.read.as_ref()),
        ] {
            refuse_short(place, token, &args.listen)?;
        }
    }
    if tokens.read.as_ref() == Some(&tokens.admin) {
        return Err(Failure::usage(
            "--read-token-file: it has the token that allows every request; use another one for reading",
        ));
    }
    Ok(tokens)
}

/// Refuses a token that can be guessed, where other machines can try.
fn refuse_short(place: &str, token: Option<&Token>, listen: &str) -> Result<(), Failure> {
    match token.map(|token| token.text().len()) {
        Some(length) if length < TOKEN_LEN_MIN => Err(Failure::usage(format!(
            "{place}: the token has {length} characters, and other machines, which can reach --listen {listen}, could guess it; expected at least {TOKEN_LEN_MIN}, such as `openssl rand -hex 32` prints"
        ))),
        _ => Ok(()),
    }
}

fn token_in(flag: &str, path: &Path) -> Result<Token, Failure> {
    let of_file = |failure: Failure| Failure {
        path: Some(path.display().to_string()),
        ..failure
    };
    let place = format!("{flag} {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| of_file(Failure::usage(format!("{place}: {error}"))))?;
    let token = checked(&place, &text).map_err(of_file)?;
    let mode = path.metadata().map_or(0, |is| is.mode() & 0o777);
    if mode & 0o044 != 0 {
        tracing::warn!(
            "{place}: other users can read it (mode {mode:03o}), and use the token; run `chmod 600 {}`",
            path.display()
        );
    }
    Ok(token)
}

/// Returns a token that can be sent as a header.
fn checked(place: &str, text: &str) -> Result<Token, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::usage(format!("{place}: it is empty")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage(format!(
            "{place}: a token has one line of visible ASCII characters without blanks, such as `openssl rand -hex 32` prints"
        )));
    }
    Ok(Token::new(text))
}

/// Returns the announcement of a server of this process.
pub(super) fn announcement(job: Option<(JobId, &str)>, url: &str, token: &Token) -> Announcement {
    Announcement {
        job_id: job.map(|(id, _)| id),
        name: job.map(|(_, name)| name.to_owned()),
        pid: std::process::id(),
        url: url.to_owned(),
        token: Some(token.text().to_owned()),
        process: ProcessIdentity::own(),
    }
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
    let other = asked.ok().flatten().map(|other| match other {
        OtherHost::Known(other) => format!(
            " It is that of another host (pid {}), whose data directory is {}: use that one with --host http://{listen}, or stop it.",
            other.pid, other.data_dir
        ),
        OtherHost::Locked => {
            format!(" It is that of another host, of another user or data directory: use that one with --host http://{listen} and its token, or stop it.")
        }
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

    fn args(listen: &str, token_file: Option<&Path>, read_token_file: Option<&Path>) -> ServeArgs {
        ServeArgs {
            listen: listen.to_owned(),
            config: None,
            token_file: token_file.map(Path::to_owned),
            read_token_file: read_token_file.map(Path::to_owned),
            workers: WorkerArgs { workers: None },
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_a_given_token() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (full, reading) = (file("token", "secret-0123456789\n"), file("read", "see-0123456789abc"));
        fn tokens(listen: &str, file: Option<&Path>, read: Option<&Path>) -> Result<Tokens, Failure> {
            super::tokens(&args(listen, file, read), address(listen)?)
        }
        let given = tokens("0.0.0.0:0", Some(&full), Some(&reading)).expect("given");
        assert_eq!(
            (given.admin.text(), given.read.as_ref().map(Token::text)),
            ("secret-0123456789", Some("see-0123456789abc"))
        );
        let short = file("short", "0123456789abcde");
        for (admin, read, place) in [
            (&short, &reading, "--token-file or REGRAFT_TOKEN"),
            (&full, &short, "--read-token-file"),
        ] {
            tokens("127.0.0.1:0", Some(admin), Some(read)).expect("others cannot reach it");
            assert_eq!(
                tokens("0.0.0.0:0", Some(admin), Some(read)).expect_err("short").message,
                format!(
                    "{place}: the token has 15 characters, and other machines, which can reach --listen 0.0.0.0:0, could guess it; expected at least 16, such as `openssl rand -hex 32` prints"
                )
            );
        }
        if std::env::var_os("REGRAFT_TOKEN").is_none() {
            let made = tokens("127.0.0.1:0", None, None).expect("made");
            assert_eq!((made.admin.text().len(), made.read), (64, None));
            assert_eq!(
                tokens("0.0.0.0:7878", None, Some(&reading))
                    .expect_err("no token")
                    .message,
                "--listen 0.0.0.0:7878: other machines can reach this address, and need a token that they know; set REGRAFT_TOKEN or --token-file, or listen on 127.0.0.1"
            );
        }
        for (bad, why) in [
            ("\n", "it is empty"),
            ("a b", "a token has one line"),
            ("a\nb", "a token has one line"),
        ] {
            let bad = file("bad", bad);
            let said = tokens("127.0.0.1:0", Some(&bad), None).expect_err("no token").message;
            assert!(said.contains(why), "{said}");
        }
        let said = tokens("127.0.0.1:0", Some(&full), Some(&full))
            .expect_err("the same")
            .message;
        assert!(
            said.starts_with("--read-token-file: it has the token that allows every request"),
            "{said}"
        );
        for bad in ["127.0.0.1", "nowhere", "127.0.0.1:port"] {
            let said = address(bad).expect_err("no address").message;
            assert!(
                said.ends_with("expected an address and a port, for example 127.0.0.1:7878"),
                "{said}"
            );
        }
    }
}
