//! An in-memory object store that stops at a given request: the host dies before or after it, or the store fails from
//! there on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The event at the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The host dies before the request takes effect.
    DieBefore,
    /// The request takes effect, but the host dies before the answer.
    DieAfter,
    /// The request and a number of following ones fail.
    Fail(usize),
    /// The request and a number of following ones fail as on a full disk.
    Full(usize),
}

/// An object store in memory, with a fate at one of its requests.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) objects: Arc<InMemory>,
    /// Number of requests so far.
    pub(super) requests: AtomicUsize,
    /// Number of the request, and its fate.
    pub(super) fate: Option<(usize, Fate)>,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

fn failed(kind: std::io::ErrorKind) -> Error {
    Error::Generic {
        store: "gate",
        source: Box::new(std::io::Error::new(kind, "500 Internal Server Error")),
    }
}

impl Gate {
    pub(super) fn new(objects: Arc<InMemory>, fate: Option<(usize, Fate)>) -> Arc<Self> {
        Arc::new(Self {
            objects,
            requests: AtomicUsize::new(0),
            fate,
        })
    }

    /// Returns true if the fate has come.
    pub(super) fn has_struck(&self) -> bool {
        self.fate
            .is_some_and(|(at, _)| self.requests.load(Ordering::Relaxed) > at)
    }

    async fn pass<T>(&self, writes: bool, request: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match self.fate {
            Some((at, Fate::DieBefore)) if number == at => std::future::pending().await,
            Some((at, Fate::DieAfter)) if number == at => {
                let _ = request.await;
                std::future::pending().await
            }
            Some((at, Fate::DieBefore | Fate::DieAfter)) if number > at => std::future::pending().await,
            Some((at, Fate::Fail(times))) if (at..at + times).contains(&number) => {
                Err(failed(std::io::ErrorKind::ConnectionReset))
            }
            Some((at, Fate::Full(times))) if writes && (at..at + times).contains(&number) => {
                Err(failed(std::io::ErrorKind::StorageFull))
            }
            _ => request.await,
        }
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.pass(true, self.objects.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unimplemented!("no multipart uploads")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass(false, self.objects.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = Self {
            objects: self.objects.clone(),
            requests: AtomicUsize::new(self.requests.fetch_add(1, Ordering::Relaxed)),
            fate: self.fate,
        };
        let deleted = async move {
            gate.pass(false, async { Ok(gate.objects.delete_stream(locations)) })
                .await
        };
        futures::stream::once(deleted)
            .flat_map(|deleted| match deleted {
                Ok(deleted) => deleted,
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass(false, self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unimplemented!("no copies")
    }
}
