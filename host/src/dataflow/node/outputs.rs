//! Turns an operator's outputs into batches.

use regraft_guest_runtime::call::Output;
use regraft_model::batch::{Batch, BytesColumn, Keys};

/// Turns an output into a batch. The output has been checked against the call. An empty column stands for that of the
/// parent rows, as `wit/` defines it.
pub(super) fn output_batch(output: Output, rows: &Batch, keys_needed: bool) -> Batch {
    let Output {
        parents,
        keys,
        values,
        timestamps,
        ..
    } = output;
    let whole = parents.len() == rows.values.len() && parents.iter().enumerate().all(|(i, p)| i as u32 == *p);
    let count = if parents.is_empty() {
        values.len()
    } else {
        parents.len()
    };
    let keys = if !keys_needed {
        Keys::default()
    } else if !keys.is_empty() {
        Keys {
            column: keys,
            ..Keys::default()
        }
    } else if rows.keys.is_none() || parents.is_empty() {
        empty_keys(count)
    } else {
        let index = parents
            .iter()
            .map(|parent| rows.keys.at(*parent as usize) as u32)
            .collect();
        Keys {
            column: rows.keys.column.clone(),
            hashes: rows.keys.hashes.clone(),
            index,
        }
    };
    let values = if !values.is_empty() || count == 0 {
        values
    } else if whole {
        rows.values.clone()
    } else {
        let mut gathered = BytesColumn::default();
        for parent in &parents {
            gathered.push(rows.values.get(*parent as usize));
        }
        gathered
    };
    let timestamps = if !timestamps.is_empty() {
        timestamps
    } else if rows.timestamps.is_empty() {
        vec![]
    } else {
        parents.iter().map(|parent| rows.timestamp(*parent as usize)).collect()
    };
    let origin = match &rows.origin {
        Some(origin) if whole => Some(origin.clone()),
        Some(origin) if !parents.is_empty() => Some(origin.select(&parents)),
        _ => None,
    };
    Batch {
        keys,
        values,
        timestamps,
        origin,
    }
}

/// Records without a key of their own have the empty key.
fn empty_keys(count: usize) -> Keys {
    let mut column = BytesColumn::default();
    column.push(b"");
    Keys {
        column,
        hashes: vec![],
        index: vec![0; count],
    }
}
