//! A stream whose writes fail after a time without progress.
//!
//! A client that sends requests and reads no answer blocks the writes of its connection for good. A request in work is no such
//! write: it may take any time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Stream with a limit of the time that a single write may block.
pub(super) struct WriteTimeout<S> {
    stream: S,
    max: Duration,
    /// Runs while a write is blocked.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    /// Returns the stream, whose writes may each block for `max`.
    pub(super) const fn new(stream: S, max: Duration) -> Self {
        Self {
            stream,
            max,
            blocked: None,
        }
    }

    /// Passes the result of a write on. One that is still blocked after the limit is [`io::ErrorKind::TimedOut`].
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let max = self.max;
        let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(max)));
        ready!(blocked.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing of an answer was read for {} s", max.as_secs()),
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(ended, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_write_that_no_one_reads_fails_and_one_that_is_read_does_not() {
        let (ours, _theirs) = duplex(4);
        let mut ours = WriteTimeout::new(ours, Duration::ZERO);
        async fn write(stream: &mut WriteTimeout<tokio::io::DuplexStream>) -> io::Result<usize> {
            poll_fn(|context| Pin::new(&mut *stream).poll_write(context, b"abcd")).await
        }
        assert_eq!(write(&mut ours).await.expect("there is room"), 4);
        let error = write(&mut ours).await.expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "nothing of an answer was read for 0 s");

        let (ours, mut theirs) = duplex(4);
        let mut ours = WriteTimeout::new(ours, Duration::from_secs(20));
        assert_eq!(write(&mut ours).await.expect("there is room"), 4);
        let mut bytes = [0; 4];
        let mut into = ReadBuf::new(&mut bytes);
        let reading = poll_fn(|context| Pin::new(&mut theirs).poll_read(context, &mut into));
        let (written, read) = tokio::join!(write(&mut ours), reading);
        assert_eq!(written.expect("there is room again"), 4);
        read.expect("read");
        assert!(ours.blocked.is_none());
    }
}
