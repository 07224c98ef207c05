//! The invariants of `_metadata`, checked when it is written and when it is read.

use std::collections::{BTreeMap, BTreeSet};

use regraft_guest_runtime::declared_limits::FIELDS_MAX;
use regraft_model::key_group::{KeyGroupRange, MAX_PARALLELISM_MAX};
use regraft_model::schema::Type;

use super::{Metadata, ModuleFile, OperatorEntry, Owner, SavedStateKind, StateEntry, StateFile};
use crate::savepoint::rows::Layout;
use crate::storage::paths;

impl Metadata {
    /// Returns all violated invariants; empty if it is valid.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Problems {
            shares: self.owner == Owner::Host,
            canonical: self.format == Layout::Canonical,
            ..Problems::default()
        };
        if self.max_parallelism == 0 || self.max_parallelism > MAX_PARALLELISM_MAX {
            found.add(format!(
                "max_parallelism is {}, expected 1 to {MAX_PARALLELISM_MAX}",
                self.max_parallelism
            ));
            return found.list;
        }
        for (name, number, bits) in [
            ("checkpoint_id", self.checkpoint_id.0, u64::BITS - 2),
            ("attempt", self.attempt.0.into(), u32::BITS - 2),
            ("job_version", self.job_version.0.into(), u32::BITS - 2),
        ] {
            if number >> bits != 0 {
                found.add(format!(
                    "{name} is {number}, expected less than 2^{bits}, so that later ones fit"
                ));
            }
        }
        if self.completed_at_ms < self.triggered_at_ms {
            found.add("it was completed before it was triggered".to_owned());
        }
        let states = || self.operators.iter().flat_map(|entry| &entry.states);
        let sizes = self.files().map(|(_, bytes)| bytes);
        let entries = states().flat_map(|state| &state.files).map(|file| file.entries);
        for (what, overflows) in [("bytes", overflow(sizes)), ("entries", overflow(entries))] {
            if overflows {
                found.add(format!("the sum of the {what} of its files does not fit in 64 bits"));
            }
        }
        for module in &self.modules {
            found.module(module);
        }
        let mut nodes = BTreeSet::new();
        for node in &self.graph {
            for edge in node.inputs.iter().filter(|edge| !nodes.contains(&edge.from)) {
                found.add(format!(
                    "graph: {} reads {}, which is not listed before it",
                    node.uid, edge.from
                ));
            }
            if !nodes.insert(node.uid.clone()) {
                found.add(format!("graph: uid {} is listed twice", node.uid));
            }
        }
        let nodes: BTreeMap<_, _> = self.graph.iter().map(|node| (&node.uid, node)).collect();
        let modules: BTreeSet<_> = self.modules.iter().map(|module| module.sha256.as_str()).collect();
        let mut uids = BTreeSet::new();
        for entry in &self.operators {
            if !uids.insert(&entry.uid) {
                found.add(format!("uid {} is listed twice", entry.uid));
            }
            match nodes.get(&entry.uid) {
                Some(node) if node.kind == entry.kind && node.parallelism == entry.parallelism => {}
                Some(_) => found.add(format!(
                    "uid {} has a different kind or parallelism in the graph",
                    entry.uid
                )),
                None if self.graph.is_empty() => {}
                None => found.add(format!("uid {} is not in the graph", entry.uid)),
            }
            found.operator(entry, self.max_parallelism, &modules);
        }
        found.list
    }
}

fn overflow(mut numbers: impl Iterator<Item = u64>) -> bool {
    numbers.try_fold(0, u64::checked_add).is_none()
}

#[derive(Default)]
struct Problems {
    list: Vec<String>,
    paths: BTreeSet<String>,
    /// True if its files may be shared with others, as those of checkpoints; false for savepoints.
    shares: bool,
    /// True if its files have typed columns, and so no schema numbers.
    canonical: bool,
}

impl Problems {
    fn add(&mut self, problem: String) {
        self.list.push(problem);
    }

    fn path(&mut self, path: &str) {
        let own = match paths::in_shared(path) {
            Some(name) if !self.shares || name.contains('/') => {
                self.add(format!(
                    "path {path:?} leads out of the savepoint, which must hold all of its files"
                ));
                return;
            }
            shared => shared.unwrap_or(path),
        };
        self.inside(path, own);
    }

    fn inside(&mut self, path: &str, own: &str) {
        let inside = !own.is_empty() && own.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !inside || own.contains(['\\', '\0']) {
            self.add(format!("path {path:?} is not a relative path into the savepoint"));
        } else if path == paths::METADATA {
            self.add(format!("path {path:?} is _metadata itself"));
        } else if !self.paths.insert(path.to_owned()) {
            self.add(format!("path {path:?} is listed twice"));
        }
    }

    fn hex(&mut self, what: &str, text: &str, digits: usize) {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != digits || !text.bytes().all(lower) {
            self.add(format!("{what} is {text:?}, expected {digits} hex digits"));
        }
    }

    fn module(&mut self, module: &ModuleFile) {
        self.hex("a module's sha256", &module.sha256, 64);
        self.hex(&format!("the checksum of {}", module.path), &module.checksum, 16);
        self.path(&module.path);
        if ![paths::module(&module.sha256), paths::shared_module(&module.sha256)].contains(&module.path) {
            self.add(format!("module {} is at {:?}", module.sha256, module.path));
        }
    }

    fn operator(&mut self, entry: &OperatorEntry, max_parallelism: u32, modules: &BTreeSet<&str>) {
        let uid = &entry.uid;
        if entry.parallelism == 0 || entry.parallelism > max_parallelism {
            self.add(format!(
                "{uid}: parallelism {} is not 1 to {max_parallelism}",
                entry.parallelism
            ));
        }
        if let Some(sha256) = entry.module.as_ref().filter(|s| !modules.contains(s.as_str())) {
            self.add(format!("{uid}: module {sha256} is not among the modules"));
        }
        if !entry.watermarks.is_empty() && entry.watermarks.len() != entry.parallelism as usize {
            let found = entry.watermarks.len();
            self.add(format!(
                "{uid}: expected {} watermarks, one for each subtask, found {found}",
                entry.parallelism
            ));
        }
        if let Some(source) = &entry.source {
            let mut splits = BTreeSet::new();
            for split in source.splits.iter().filter(|split| !splits.insert(&split.split)) {
                self.list
                    .push(format!("{uid}: split {:?} is listed twice", split.split));
            }
        }
        if !entry.subtasks.is_empty() && entry.subtasks.len() != entry.parallelism as usize {
            let found = entry.subtasks.len();
            self.add(format!(
                "{uid}: expected records of {} subtasks, found {found}",
                entry.parallelism
            ));
        }
        let mut names = BTreeSet::new();
        for state in &entry.states {
            if !names.insert((&state.name, state.kind.is_keyed(), state.kind == SavedStateKind::Timers)) {
                self.add(format!("{uid}/{}: the state is listed twice", state.name));
            }
            self.state(entry, state, max_parallelism);
        }
    }

    fn state(&mut self, entry: &OperatorEntry, state: &StateEntry, max_parallelism: u32) {
        let at = format!("{}/{}", entry.uid, state.name);
        if !is_digest_of(&state.digest, &state.schema) {
            self.add(format!("{at}: digest {} is not that of its schema", state.digest));
        }
        let types = state
            .schemas
            .iter()
            .chain(state.key.as_ref().map(|key| &key.ty))
            .chain(&state.map_key);
        for fields in types.filter_map(field_count).filter(|fields| *fields > FIELDS_MAX) {
            self.add(format!(
                "{at}: a type has {fields} fields, expected at most {FIELDS_MAX}"
            ));
        }
        if state.schemas.last() != Some(&state.schema) {
            self.add(format!("{at}: its schema is not the last in its list of schemas"));
        }
        if state.kind.has_keys() != state.key.is_some() {
            self.add(format!(
                "{at}: {} state {} a key",
                state.kind,
                if state.key.is_some() { "with" } else { "without" }
            ));
        }
        let key_fits = match (&state.key_digest, &state.key) {
            (Some(digest), Some(key)) => is_digest_of(digest, &key.ty),
            (digest, key) => digest.is_some() == key.is_some(),
        };
        if !key_fits {
            self.add(format!("{at}: the key's digest is not that of its type"));
        }
        if (state.kind == SavedStateKind::Map) != state.map_key.is_some() {
            let with = if state.map_key.is_some() { "with" } else { "without" };
            self.add(format!("{at}: {} state {with} a map key", state.kind));
        }
        if state.kind != SavedStateKind::Timers && !state.timers.is_empty() {
            self.add(format!("{at}: {} state with names of timers", state.kind));
        }
        for file in &state.files {
            self.file(&at, entry, state, file, max_parallelism);
        }
        if state.kind.is_keyed() {
            self.coverage(&at, state, max_parallelism);
        }
        if state.kind.has_keys() {
            self.chains(&at, state);
        }
    }

    fn file(&mut self, at: &str, entry: &OperatorEntry, state: &StateEntry, file: &StateFile, max_parallelism: u32) {
        self.path(&file.path);
        self.hex(&format!("the checksum of {}", file.path), &file.checksum, 16);
        if file.increment && !(state.kind.has_keys() && self.shares && file.schema == 0) {
            self.add(format!(
                "{at}: {} is an increment; only keyed state and positions of a checkpoint may have one",
                file.path
            ));
        }
        if file.subtask.0 >= entry.parallelism {
            self.add(format!("{at}: subtask {} of {}", file.subtask, entry.parallelism));
        }
        if usize::from(file.schema) > state.schemas.len() {
            self.add(format!(
                "{at}: {} has schema {} of {}",
                file.path,
                file.schema,
                state.schemas.len()
            ));
        }
        if file.schema == 0 && self.canonical {
            self.add(format!(
                "{at}: {} names no schema, and canonical rows do not either",
                file.path
            ));
        }
        if !state.kind.is_keyed() && (file.key_groups.first, file.key_groups.last) != (0, 0) {
            self.add(format!(
                "{at}: {} has key groups, which {} state does not have",
                file.path, state.kind
            ));
        }
        let mut rows = 0u64;
        let mut next = (0, file.key_groups.first);
        for extent in &file.groups {
            let ordered = extent.first_group >= next.1 && extent.first_group <= extent.last_group;
            let inside = extent.last_group <= file.key_groups.last;
            if !ordered || !inside || extent.row_group != next.0 || extent.rows == 0 {
                let (first, last) = (extent.first_group, extent.last_group);
                self.add(format!(
                    "{at}: {}: row group {} with key groups {first} to {last} is out of place",
                    file.path, next.0
                ));
            }
            next = (next.0 + 1, extent.last_group);
            rows = rows.saturating_add(extent.rows);
        }
        self.places(at, file);
        if rows != file.entries {
            self.add(format!(
                "{at}: {} lists {} entries, and its row groups {rows}",
                file.path, file.entries
            ));
        }
        self.range(at, file.key_groups, max_parallelism);
    }

    /// Checks that the parts of a file are in order, and that the footer ends the file.
    fn places(&mut self, at: &str, file: &StateFile) {
        let row_groups = file.groups.iter().map(|extent| extent.place.as_ref());
        let mut end = 0;
        for place in row_groups.chain([file.footer.as_ref()]) {
            match place {
                None if file.footer.is_none() => {}
                Some(place) if file.footer.is_some() && place.offset >= end => {
                    self.hex(&format!("the checksum of a part of {}", file.path), &place.checksum, 16);
                    end = place.range().end;
                    continue;
                }
                _ => self.add(format!("{at}: {}: its parts are out of place", file.path)),
            }
            return;
        }
        if end != file.bytes {
            self.add(format!(
                "{at}: {} lists {} bytes, and its parts end at {end}",
                file.path, file.bytes
            ));
        }
    }

    fn range(&mut self, at: &str, range: KeyGroupRange, max_parallelism: u32) {
        if range.first > range.last || u32::from(range.last) >= max_parallelism {
            self.add(format!(
                "{at}: key groups {} to {} of {max_parallelism}",
                range.first, range.last
            ));
        }
    }

    /// Checks that every key group belongs to exactly one subtask, which may have a file for each schema.
    fn coverage(&mut self, at: &str, state: &StateEntry, max_parallelism: u32) {
        let mut ranges: Vec<(KeyGroupRange, Option<u32>)> = state
            .files
            .iter()
            .map(|file| (file.key_groups, Some(file.subtask.0)))
            .collect();
        for range in &state.empty {
            self.range(at, *range, max_parallelism);
            ranges.push((*range, None));
        }
        ranges.sort_by_key(|(range, subtask)| (range.first, range.last, *subtask));
        ranges.dedup_by(|a, b| a == b && a.1.is_some());
        let mut next = 0u32;
        for (range, _) in ranges {
            let first = u32::from(range.first);
            if first > next {
                self.add(format!("{at}: no file has key groups {next} to {}", first - 1));
            } else if first < next {
                self.add(format!("{at}: two subtasks have key group {first}"));
            }
            next = next.max(u32::from(range.last) + 1);
        }
        if next < max_parallelism {
            self.add(format!(
                "{at}: no file has key groups {next} to {}",
                max_parallelism - 1
            ));
        }
    }

    /// Checks that each subtask has one file for each schema at most, and increments after it.
    fn chains(&mut self, at: &str, state: &StateEntry) {
        let (mut schemas, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for file in &state.files {
            let (subtask, schema) = (file.subtask, file.schema);
            if file.increment {
                changed.insert(subtask);
            } else if !schemas.insert((subtask, schema)) {
                self.add(format!("{at}: subtask {subtask} has two files of schema {schema}"));
            } else if changed.contains(&subtask) {
                self.add(format!("{at}: {} is listed after changes to it", file.path));
            }
        }
    }
}

/// Returns the number of fields of a struct, each of which has a column.
const fn field_count(ty: &Type) -> Option<usize> {
    match ty {
        Type::Struct(of) => Some(of.fields.len()),
        _ => None,
    }
}

/// Returns true if a digest is that of a schema, also as releases wrote it that told `bytes` and lists of `u8` apart.
fn is_digest_of(digest: &str, schema: &Type) -> bool {
    digest == schema.digest().to_string() || digest == schema.digest_as_written().to_string()
}
