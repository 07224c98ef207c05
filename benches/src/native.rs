//! An operator of the SDK as an operator of the host, without wasm in between, to measure the cost of the host itself.
//!
//! The SDK's driver takes owned columns, so inputs are copied once, as they are into the memory of a component.

use std::fmt;

use regraft::dataflow::operator::Operator as HostOperator;
use regraft_guest_runtime::call::{
    BatchView, CellColumn, CellWrites, Failure, Header, KeyedView, OpenContext, Outcome, Output,
};
use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::BytesColumn;
use regraft_sdk::Operator;
use regraft_sdk::native;

/// An instance of a native operator.
pub(crate) struct NativeOperator<O: Operator> {
    config: String,
    instance: Option<native::Instance<O>>,
}

impl<O: Operator> NativeOperator<O> {
    /// Creates an instance that will be opened with this config, as JSON.
    pub(crate) fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            instance: None,
        }
    }

    fn instance(&mut self) -> Result<&mut native::Instance<O>, GuestError> {
        self.instance.as_mut().ok_or_else(|| {
            failed(native::Failure {
                row: None,
                message: "not opened".into(),
            })
        })
    }
}

impl<O: Operator> fmt::Debug for NativeOperator<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeOperator").finish_non_exhaustive()
    }
}

impl<O: Operator + Send> HostOperator for NativeOperator<O> {
    fn open(&mut self, header: Header, context: &OpenContext) -> Result<(), GuestError> {
        let context = native::OpenRecord {
            uid: context.uid.clone(),
            subtask: context.subtask,
            parallelism: context.parallelism,
            max_parallelism: context.max_parallelism,
        };
        self.instance =
            Some(native::Instance::open(header_record(header), &context, &self.config, &[]).map_err(failed)?);
        Ok(())
    }

    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        let records = native::Batch {
            input: batch.input,
            key_index: batch.key_index.to_vec(),
            value_data: batch.value_data.to_vec(),
            value_ends: batch.value_ends.to_vec(),
            timestamps: batch.timestamps.to_vec(),
        };
        self.instance()?
            .process(header_record(header), records, keyed_record(keyed))
            .map(outcome)
            .map_err(failed)
    }

    fn finish_keys(&mut self, header: Header, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        self.instance()?
            .finish_keys(header_record(header), keyed_record(keyed))
            .map(outcome)
            .map_err(failed)
    }

    fn finish(&mut self, header: Header) -> Result<Outcome, GuestError> {
        self.instance()?
            .finish(header_record(header))
            .map(outcome)
            .map_err(failed)
    }

    fn reset(&mut self) -> Result<(), GuestError> {
        self.instance = None;
        Ok(())
    }
}

fn failed(failure: native::Failure) -> GuestError {
    GuestError::Failed {
        failure: Failure {
            row: failure.row,
            message: failure.message,
        },
    }
}

fn header_record(header: Header) -> native::Header {
    native::Header {
        now: header.now,
        watermark: header.watermark,
        seed: header.seed,
        first_row: header.first_row,
    }
}

fn keyed_record(keyed: KeyedView<'_>) -> native::Keyed {
    native::Keyed {
        key_data: keyed.key_data.to_vec(),
        key_ends: keyed.key_ends.to_vec(),
        cells: keyed.cells.iter().map(cells_record).collect(),
    }
}

fn cells_record(cells: &CellColumn) -> native::Cells {
    native::Cells {
        state: cells.state,
        present: cells.present.clone(),
        data: cells.values.data.clone(),
        ends: cells.values.ends.clone(),
    }
}

fn outcome(outcome: native::Outcome) -> Outcome {
    let column = |data, ends| BytesColumn { data, ends };
    let output = |output: native::OutputRecord| Output {
        port: output.port,
        parents: output.parents,
        keys: column(output.key_data, output.key_ends),
        values: column(output.value_data, output.value_ends),
        timestamps: output.timestamps,
    };
    let writes = |writes: native::CellWrites| CellWrites {
        state: writes.state,
        keys: writes.keys,
        values: column(writes.data, writes.ends),
        cleared: writes.cleared,
    };
    Outcome {
        outputs: outcome.outputs.into_iter().map(output).collect(),
        cells: outcome.cells.into_iter().map(writes).collect(),
        ..Outcome::default()
    }
}
