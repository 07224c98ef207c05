//! Builds timely's program, and fetches and compiles Flink's, below `target/bench-peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::settings::{Contender, Settings};

/// The Python package that has all of Flink.
const FLINK: &str = "apache-flink-libraries==2.3.0";
/// Heap of Flink, in all of its one process.
const HEAP: [&str; 3] = ["-Xms4g", "-Xmx4g", "-XX:+UseParallelGC"];
/// Packages of Java that Flink reaches into, as its own configuration opens them.
const OPENED: [&str; 12] = [
    "lang",
    "net",
    "io",
    "nio",
    "lang.reflect",
    "text",
    "time",
    "util",
    "util.concurrent",
    "util.concurrent.atomic",
    "util.concurrent.locks",
    "math",
];

/// The other programs.
pub(super) struct Peers {
    /// Timely's program.
    pub(super) timely: Option<PathBuf>,
    /// Flink.
    pub(super) flink: Option<Flink>,
}

/// An installation of Flink, and the compiled jobs.
pub(super) struct Flink {
    class_path: String,
    logging: PathBuf,
}

impl Peers {
    /// Makes ready what takes part. `wanted`: a workload that they can do is measured.
    pub(super) fn prepare(settings: &Settings, wanted: bool) -> Result<Self, Failure> {
        let without_timely = settings.without.contains(&Contender::Timely);
        Ok(Self {
            timely: (wanted && !without_timely).then(timely).transpose()?,
            flink: (wanted && settings.flink).then(Flink::prepare).transpose()?,
        })
    }
}

/// Returns the directory of the sources.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Returns the directory of everything that is built or fetched.
fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-peers")
}

fn done(what: &str, command: &mut Command) -> Result<(), Failure> {
    eprintln!("{what}");
    // Progress belongs to stderr: stdout has the tables.
    let status = command.stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what}: {command:?} ended with {status}").into()),
        Err(error) => Err(format!("{what}: cannot start {:?}: {error}", command.get_program()).into()),
    }
}

fn timely() -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let target = target().join("timely");
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(sources().join("timely"))
        .env_remove("CARGO_BUILD_BUILD_DIR");
    done(
        "building timely's program (--without timely leaves it out)",
        &mut command,
    )?;
    Ok(target.join("release/regraft-peer-timely"))
}

impl Flink {
    fn prepare() -> Result<Self, Failure> {
        let (sources, target) = (sources().join("flink"), target());
        let lib = target.join("flink/pyflink/lib");
        if !lib.exists() {
            let mut command = Command::new("python3");
            command.args(["-m", "pip", "install", "--no-deps", "--no-compile", "--target"]);
            command.arg(target.join("flink")).arg(FLINK);
            done("fetching Flink, 330 MB", &mut command)?;
        }
        let mut jars = vec![];
        for entry in std::fs::read_dir(&lib)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let wanted = ["flink-dist-", "flink-connector-files-", "log4j-"];
            if wanted.iter().any(|prefix| name.starts_with(prefix)) {
                jars.push(lib.join(name).to_string_lossy().into_owned());
            }
        }
        jars.sort();
        let classes = target.join("classes");
        std::fs::create_dir_all(&classes)?;
        let mut command = Command::new("javac");
        command.arg("-d").arg(&classes).args(["-cp", &jars.join(":")]);
        for entry in std::fs::read_dir(&sources)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "java") {
                command.arg(path);
            }
        }
        done("compiling Flink's jobs", &mut command)?;
        Ok(Self {
            class_path: format!("{}:{}", classes.display(), jars.join(":")),
            logging: sources.join("log4j2.properties"),
        })
    }

    /// Returns the command, without the arguments of the job.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("java");
        command.args(HEAP);
        for package in OPENED {
            command.arg(format!("--add-opens=java.base/java.{package}=ALL-UNNAMED"));
        }
        command
            .args([
                "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
                "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
            ])
            .arg(format!("-Dlog4j.configurationFile=file:{}", self.logging.display()))
            .arg("-Dlog4j2.disable.jmx=true")
            .args(["-cp", &self.class_path, "peer.Peer"]);
        command
    }
}
