//! All exit statuses of the process.

use std::process::ExitCode;

use regraft_model::error_kind::ErrorKind;

/// Exit status of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The command succeeded.
    Done = 0,
    /// The command was understood and failed.
    Failed = 1,
    /// Arguments, the job file or a module are wrong, or there is no such job.
    Usage = 2,
    /// The user interrupted the command, and no savepoint was taken.
    Interrupted = 130,
}

/// Text at the end of every command's `--help`.
pub const EXIT_STATUS_HELP: &str = "\
Exit status:
    0  done
    1  the operation failed: missing input, refused restore or upgrade, corrupt file, job FAILED or CANCELED
    2  usage: arguments, job file, module, or no such job
  130  interrupted; nothing was saved";

impl ExitStatus {
    /// Returns the status as a number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<ErrorKind> for ExitStatus {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Failed | ErrorKind::Data | ErrorKind::Bug => Self::Failed,
            ErrorKind::Interrupted => Self::Interrupted,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_in_the_help() {
        for status in [
            ExitStatus::Done,
            ExitStatus::Failed,
            ExitStatus::Usage,
            ExitStatus::Interrupted,
        ] {
            let number = format!("{:>5}  ", status.code());
            assert!(
                EXIT_STATUS_HELP.lines().any(|line| line.starts_with(&number)),
                "{status:?}"
            );
        }
        assert_eq!(ExitStatus::from(ErrorKind::Data), ExitStatus::Failed);
        assert_eq!(ExitStatus::from(ErrorKind::Interrupted).code(), 130);
    }
}
