//! Requests for snapshots, and the report that answers one.

use regraft_model::snapshot::SnapshotKind;

use crate::dataflow::element::SwapSet;
use crate::dataflow::operator::Modules;
use crate::savepoint::rows::Layout;

/// A snapshot of a job, by its purpose.
#[derive(Debug)]
pub enum SnapshotRequest {
    /// A checkpoint, taken by the job itself.
    Checkpoint,
    /// A savepoint beside which the job goes on; commits nothing.
    Savepoint(SavepointTarget),
    /// A savepoint that ends the job.
    Stop {
        /// Its directory and layout.
        target: SavepointTarget,
        /// True if sources end first and `finish` runs (`stop --drain`).
        drain: bool,
    },
    /// The checkpoint that follows the end of all input.
    EndOfInput,
    /// A checkpoint behind whose barrier other modules run.
    Upgrade(SwapRequest),
}

/// Directory and layout of a savepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavepointTarget {
    /// The directory in which it gets a directory of its own: a path or URL.
    pub dir: String,
    /// Layout of its state files.
    pub layout: Layout,
}

/// Modules to swap in at a barrier.
#[derive(Debug)]
pub struct SwapRequest {
    /// Opened instances, which travel in the barrier.
    pub set: SwapSet,
    /// The modules they are instances of, recorded once the snapshot is durable.
    pub modules: Modules,
}

impl SnapshotRequest {
    /// The kind of its round.
    #[must_use]
    pub const fn kind(&self) -> SnapshotKind {
        match self {
            Self::Checkpoint => SnapshotKind::Checkpoint,
            Self::Savepoint(_) => SnapshotKind::Savepoint,
            Self::Stop { .. } => SnapshotKind::Stop,
            Self::EndOfInput => SnapshotKind::EndOfInput,
            Self::Upgrade(_) => SnapshotKind::Upgrade,
        }
    }

    /// The user's target; `None` for a checkpoint in the host's own directory.
    #[must_use]
    pub const fn savepoint(&self) -> Option<&SavepointTarget> {
        match self {
            Self::Savepoint(target) | Self::Stop { target, .. } => Some(target),
            Self::Checkpoint | Self::EndOfInput | Self::Upgrade(_) => None,
        }
    }

    /// Layout of its state files.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.savepoint().map_or(Layout::Native, |target| target.layout)
    }

    /// The modules to swap in; `None` unless it is an upgrade.
    #[must_use]
    pub const fn swaps(&self) -> Option<&Modules> {
        match self {
            Self::Upgrade(swap) => Some(&swap.modules),
            _ => None,
        }
    }

    /// The word for it in messages to its requester.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        if self.savepoint().is_some() {
            "savepoint"
        } else {
            "checkpoint"
        }
    }

    /// True if no other round may be under way beside it.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        !matches!(self, Self::Checkpoint)
    }
}

/// Number of a request, unique among those of one job in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request, and the number under which it is answered; `None` if the job itself asks.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: Option<RequestId>,
    pub(crate) request: SnapshotRequest,
}

impl Asked {
    /// A request of the job itself.
    pub(crate) const fn by_the_job(request: SnapshotRequest) -> Self {
        Self { id: None, request }
    }
}
