//! The object store of checkpoints and savepoints: slow, and faulty as the fate decides.
//!
//! A put becomes visible as a whole, and is durable when it is answered, as the contract of the store says. The answer
//! may be lost. A request goes on when its caller no longer waits for it; in some seeds, a put goes on even when its
//! host has died, and takes effect while the next one runs. Deletions become durable only with the next put: a power
//! loss may undo the last of them. Deletions of `_metadata` are durable at once, as the host makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use regraft::dataflow::control::locked;
use regraft::environment::Environment as _;
use regraft::jobs::durable::records::AttemptRecord;
use regraft::savepoint::metadata::Metadata;
use regraft::storage::{Storage, StoreError, Stores, paths};

use crate::fate::{Fate, Place, Verdict};
use crate::machine::Process;
use crate::random::Random;

/// The effect of a request on the objects.
type Work = Box<dyn FnOnce(&mut Inner) + Send>;

struct Inner {
    objects: BTreeMap<String, Bytes>,
    /// Deletions since the last put, in order.
    deleted: Vec<(String, Bytes)>,
    random: Random,
    /// Names of all `_metadata` objects put since the last call of `take_published`.
    published: Vec<String>,
    /// The objects that each existing `_metadata` names.
    named: BTreeMap<String, BTreeSet<String>>,
    /// The first violation, if any.
    wrong: Option<String>,
    /// Requests under way, by number, with true for a put.
    under_way: BTreeMap<u64, (bool, Work)>,
    next: u64,
    /// Puts of dead processes that take effect later, with their time.
    late: Vec<(u64, Work)>,
}

impl Inner {
    /// Checks a deletion: no `_metadata` may name the object, unless the whole of an ended job is being removed.
    fn note_needed(&mut self, deleted: &str) {
        let needs = |(_, named): &(&String, &BTreeSet<String>)| named.contains(deleted);
        let Some((metadata, _)) = self.named.iter().find(needs) else {
            return;
        };
        let job: Vec<&str> = deleted.split('/').take(2).collect();
        if !self.objects.contains_key(&format!("{}/ended.json", job.join("/"))) {
            self.wrong = Some(format!("{deleted} is deleted, and {metadata} names it"));
        }
    }
}

/// Returns the objects that a `_metadata` names.
fn named_by(name: &str, bytes: &Bytes) -> BTreeSet<String> {
    let Ok(metadata) = Metadata::from_text(bytes, name) else {
        return BTreeSet::new();
    };
    let own = name.trim_end_matches("/_metadata");
    let job = own.rsplit_once('/').map_or("", |(job, _)| job);
    let at = |path: &str| match paths::in_shared(path) {
        Some(name) => format!("{job}/{}/{name}", paths::SHARED_DIR),
        None => format!("{own}/{path}"),
    };
    metadata.files().map(|(path, _)| at(path)).collect()
}

/// The objects, which outlive processes.
pub struct Objects(Mutex<Inner>);

impl Objects {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            objects: BTreeMap::new(),
            deleted: vec![],
            random: Random::of(seed, "store"),
            published: vec![],
            named: BTreeMap::new(),
            wrong: None,
            under_way: BTreeMap::new(),
            next: 0,
            late: vec![],
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulates a power loss: undoes some of the last deletions.
    pub fn lose_power(&self) {
        let mut inner = self.inner();
        let mut deleted = std::mem::take(&mut inner.deleted);
        let durable = inner.random.below(deleted.len() as u64 + 1) as usize;
        for (name, bytes) in deleted.drain(durable..) {
            inner.objects.entry(name).or_insert(bytes);
        }
    }

    /// Returns all names, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner().objects.keys().cloned().collect()
    }

    /// Abandons the requests of a dead process. Its puts are lost, or where the store `is_late`, take effect now or
    /// later.
    pub fn abandon(&self, now: u64, is_late: bool) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        for (_, (is_put, work)) in std::mem::take(&mut inner.under_way) {
            if is_late && is_put && inner.random.percent(50) {
                let delay = *inner.random.pick(&[0, 1, 20, 100, 500, 2_000]);
                inner.late.push((now + delay * 1_000_000, work));
            }
        }
    }

    /// Applies the puts of dead processes that are due. Returns true if there were any.
    pub fn apply_late(&self, now: u64) -> bool {
        let mut inner = self.inner();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.late)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        inner.late = later;
        let any = !due.is_empty();
        for (_, work) in due {
            let published = inner.published.len();
            work(&mut inner);
            // No living process knows of it, so it need not be usable.
            for name in inner.published.split_off(published) {
                inner.named.remove(&name);
            }
        }
        any
    }

    /// Returns the checkpoint from which the newest attempt of a job has gone on, according to its records.
    pub fn gone_on_from(&self, job: &str) -> Option<u64> {
        let inner = self.inner();
        let attempts = under(&inner.objects, &format!("{job}/attempts"));
        let read = |bytes: &Bytes| serde_json::from_slice::<AttemptRecord>(bytes).ok();
        let restored = attempts
            .into_iter()
            .filter_map(|(_, bytes)| read(bytes)?.takeover()?.restored);
        restored.map(|id| id.0).max()
    }

    /// Returns true if a snapshot that has just become visible does not count, according to the records of its job: an earlier
    /// attempt has completed it after a later one had taken the job over, or the job had ended.
    pub fn is_late(&self, of: &Metadata) -> bool {
        let inner = self.inner();
        let has = |record: &str| {
            inner
                .objects
                .contains_key(&format!("checkpoints/{}/{record}", of.job_id))
        };
        if !has("job.json") || has("ended.json") {
            return true;
        }
        let attempts = under(&inner.objects, &format!("checkpoints/{}/attempts", of.job_id));
        let read = |bytes: &Bytes| serde_json::from_slice::<AttemptRecord>(bytes).ok();
        let newest = attempts
            .into_iter()
            .filter_map(|(_, bytes)| read(bytes))
            .max_by_key(|record| record.attempt);
        newest
            .and_then(|newest| newest.takeover())
            .is_some_and(|since| of.attempt < since.attempt)
    }

    /// Lets go of the files of a snapshot that does not count: whoever runs the job may delete them.
    pub fn disown(&self, metadata: &str) {
        self.inner().named.remove(metadata);
    }

    /// Returns the description of a deletion of something that was still needed, if there was one.
    pub fn wrong(&self) -> Option<String> {
        self.inner().wrong.clone()
    }

    /// Takes the names of the `_metadata` objects put since the last call.
    pub fn take_published(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().published)
    }
}

/// The store as seen by a process; or with no process, as seen by a bystander, without delays and faults.
#[derive(Clone)]
pub struct SimStore {
    pub objects: Arc<Objects>,
    pub of: Option<(Process, Fate)>,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

impl Stores for SimStore {
    fn open(&self, location: &str) -> std::result::Result<Storage, StoreError> {
        let base = location.strip_prefix("store:///").unwrap_or(location);
        Storage::with_store(Arc::new(self.clone()), base.trim_matches('/'))
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: "simulation",
        source: source.into(),
    }
}

impl SimStore {
    /// Makes a request, which succeeds or fails as the fate decides.
    async fn ask<T: Send + 'static>(
        &self,
        place: Place,
        path: &Path,
        work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some((process, fate)) = self.of.clone() else {
            return work(&mut self.objects.inner());
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (objects, own, path) = (self.objects.clone(), process.clone(), path.clone());
        let writes = matches!(place, Place::Put | Place::PutMetadata | Place::Create);
        // The effect is kept where it may outlive the process.
        let done: Arc<Mutex<Option<Result<T>>>> = Arc::default();
        let result = done.clone();
        let work: Work = Box::new(move |inner| *locked(&result) = Some(work(inner)));
        let number = {
            let mut inner = objects.inner();
            inner.next += 1;
            let number = inner.next;
            inner.under_way.insert(number, (writes, work));
            number
        };
        process.spawn(Box::pin(async move {
            let (before, after) = delays(&mut objects.inner().random);
            own.sleep(before).await;
            let verdict = fate.visit(place, writes, path.as_ref());
            if let Verdict::Nap(steps) = verdict {
                own.machine.nap(own.number, steps);
                if !own.machine.is_alive(own.number) {
                    return;
                }
            }
            let work = |objects: &Objects| {
                let mut inner = objects.inner();
                if let Some((_, work)) = inner.under_way.remove(&number) {
                    work(&mut inner);
                }
            };
            let error = match verdict {
                Verdict::Go | Verdict::Nap(_) => {
                    work(&objects);
                    None
                }
                Verdict::Fail => Some(failed("the store does not answer (simulated)")),
                Verdict::FailAfter => {
                    work(&objects);
                    Some(failed("the answer of the store was lost (simulated)"))
                }
                Verdict::NoSpace => Some(failed(std::io::Error::from(std::io::ErrorKind::StorageFull))),
                Verdict::Crash => return,
                Verdict::CrashAfter => {
                    work(&objects);
                    own.machine.kill();
                    return;
                }
            };
            // A failed request is over; only requests of dead processes can still take effect.
            objects.inner().under_way.remove(&number);
            own.sleep(after).await;
            let result = error.map_or_else(|| locked(&done).take(), |error| Some(Err(error)));
            let _ = result.map(|result| answer.send(result));
        }));
        match answered.await {
            Ok(result) => result,
            // The process is dead, so no answer is needed.
            Err(_) => futures::future::pending().await,
        }
    }
}

/// Draws the delays before and after a request takes effect: mostly short, rarely very long.
fn delays(random: &mut Random) -> (Duration, Duration) {
    let mut delay = || {
        let us = match random.below(100) {
            0 => random.range(1_000_000, 20_000_000),
            1..=4 => random.range(20_000, 500_000),
            _ => random.range(100, 5_000),
        };
        Duration::from_micros(us)
    };
    (delay(), delay())
}

fn meta(name: &str, bytes: &Bytes) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(name),
        last_modified: Default::default(),
        size: bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

fn not_found(name: &str) -> Error {
    Error::NotFound {
        path: name.to_owned(),
        source: "there is no such object".into(),
    }
}

fn unsupported(what: &str) -> Error {
    failed(format!("the simulated store has no {what}"))
}

fn under<'a>(objects: &'a BTreeMap<String, Bytes>, prefix: &str) -> Vec<(&'a String, &'a Bytes)> {
    let below = |name: &str| prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    objects.iter().filter(|(name, _)| below(name)).collect()
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (name, bytes) = (location.to_string(), Bytes::from(payload));
        let create = matches!(options.mode, PutMode::Create);
        let place = match location.filename() {
            Some("_metadata") => Place::PutMetadata,
            _ if create => Place::Create,
            _ => Place::Put,
        };
        let put = move |inner: &mut Inner| {
            if create && inner.objects.contains_key(&name) {
                let source = "the object is there".into();
                return Err(Error::AlreadyExists { path: name, source });
            }
            inner.deleted.clear();
            if place == Place::PutMetadata {
                inner.published.push(name.clone());
                inner.named.insert(name.clone(), named_by(&name, &bytes));
            }
            inner.objects.insert(name, bytes);
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Default::default(),
            })
        };
        self.ask(place, location, put).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let name = location.to_string();
        let get = move |inner: &mut Inner| {
            let bytes = inner.objects.get(&name).cloned().ok_or_else(|| not_found(&name))?;
            let meta = meta(&name, &bytes);
            let range = match &options.range {
                None => 0..meta.size,
                Some(range) => range.as_range(meta.size).map_err(failed)?,
            };
            let part = bytes.slice(range.start as usize..range.end as usize);
            Ok((meta, range, part))
        };
        let (meta, range, part) = self.ask(Place::Get, location, get).await?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(part) }).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let name = location.to_string();
                    let delete = move |inner: &mut Inner| match inner.objects.remove(&name) {
                        // A `_metadata` is always deleted durably.
                        Some(_) if name.ends_with("/_metadata") => {
                            inner.named.remove(&name);
                            Ok(())
                        }
                        Some(bytes) => {
                            inner.note_needed(&name);
                            inner.deleted.push((name, bytes));
                            Ok(())
                        }
                        None => Err(not_found(&name)),
                    };
                    store.ask(Place::Delete, &location, delete).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let found = async move {
            let at = prefix.clone();
            let list = move |inner: &mut Inner| {
                let found = under(&inner.objects, at.as_ref());
                let mut metas: Vec<ObjectMeta> = found.into_iter().map(|(name, bytes)| meta(name, bytes)).collect();
                inner.random.shuffle(&mut metas);
                Ok(metas)
            };
            match store.ask(Place::List, &prefix, list).await {
                Ok(metas) => metas.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(found).flat_map(stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let at = prefix.clone();
        let list = move |inner: &mut Inner| {
            let (mut objects, mut dirs) = (vec![], std::collections::BTreeSet::new());
            for (name, bytes) in under(&inner.objects, at.as_ref()) {
                let rest = name[at.as_ref().len()..].trim_start_matches('/');
                match rest.split_once('/') {
                    None => objects.push(meta(name, bytes)),
                    Some((dir, _)) => {
                        dirs.insert(name[..name.len() - rest.len() + dir.len()].to_owned());
                    }
                }
            }
            inner.random.shuffle(&mut objects);
            Ok(ListResult {
                common_prefixes: dirs.into_iter().map(Path::from).collect(),
                objects,
                extensions: Default::default(),
            })
        };
        self.ask(Place::List, &prefix, list).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copies"))
    }
}
