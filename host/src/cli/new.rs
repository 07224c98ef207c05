//! `new` and `sdk`: a job that is ready to run, and the SDK in it.

use serde_json::json;

use super::args::{NewArgs, SdkArgs, Template as Choice};
use super::failure::Failure;
use super::output::Output;
use crate::scaffold::{self, Template};

/// `regraft new`.
///
/// # Errors
/// [`Failure`] where the name is invalid, or the directory exists or cannot be written.
pub fn new(args: &NewArgs, output: Output) -> Result<(), Failure> {
    let template = match args.template {
        Choice::WordCount => Template::WordCount,
        Choice::Sessions => Template::Sessions,
        Choice::Join => Template::Join,
        Choice::Empty => Template::Empty,
    };
    let made = scaffold::new_job(&args.name, template)?;
    let files: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    let json = json!({ "name": made.name, "dir": made.dir, "files": files, "sdk": made.sdk });
    output.result(&json, || {
        let list: String = files.iter().map(|file| format!("  {file}\n")).collect();
        let dir = made.dir.display();
        format!(
            "Made {} in {dir}:\n{list}  {}/ (the SDK)\nRun it with:\n  cd {dir} && regraft run job.toml",
            made.name,
            made.sdk.display()
        )
    });
    Ok(())
}

/// `regraft sdk`.
///
/// # Errors
/// [`Failure`] where the directory has no job that `regraft new` made, or the SDK there was changed or cannot be written.
pub fn sdk(args: &SdkArgs, output: Output) -> Result<(), Failure> {
    let moved = scaffold::move_sdk(&args.dir)?;
    let json = json!({
        "dir": moved.dir,
        "from": moved.from,
        "to": moved.to,
        "changed": moved.from.as_deref() != Some(moved.to),
        "manifest_changed": moved.manifest_changed,
    });
    output.result(&json, || {
        let dir = moved.dir.display();
        let mut text = match &moved.from {
            Some(from) if from == moved.to => format!("{dir}: {from}, nothing to do"),
            Some(from) => format!("{dir}: {from} -> {}", moved.to),
            None => format!("{dir}: {}", moved.to),
        };
        if moved.manifest_changed {
            text.push_str("\nCargo.toml names it now.");
        }
        text
    });
    Ok(())
}
