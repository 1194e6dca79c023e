//! The pipes of a container's processes, read by the container's own task.
//!
//! Reading happens in two ways. [`Pipes::pump`] waits for output while the container works. [`Pipes::drain`] takes what is there without
//! waiting, at the end of a call: a process that asked for its next event has written all of the last one's output, so the lines come before
//! `END`. It asks the kernel itself, not tokio, which may not have heard of the bytes yet.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::unix::pipe;

use super::lines::{Kind, Line, Splitter};
use super::writer::LogWriter;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// Most that [`Pipes::drain`] takes from one pipe, so that a process that never stops writing cannot hold it.
const DRAIN_BYTES: usize = 1024 * 1024;

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Function,
    Extension,
}

/// Open pipes of one container.
pub(crate) struct Pipes {
    pipes: Vec<Open>,
    buffer: Box<[u8; CHUNK]>,
}

struct Open {
    source: Source,
    pipe: pipe::Receiver,
    splitter: Splitter,
}

impl Pipes {
    pub(crate) fn new() -> Self {
        Self { pipes: Vec::new(), buffer: Box::new([0; CHUNK]) }
    }

    /// Adds a process's output.
    pub(crate) fn add_text(&mut self, source: Source, fd: OwnedFd) -> io::Result<()> {
        self.add(source, fd, Kind::Text)
    }

    /// Adds a log pipe.
    pub(crate) fn add_frames(&mut self, source: Source, fd: OwnedFd) -> io::Result<()> {
        self.add(source, fd, Kind::Frames)
    }

    fn add(&mut self, source: Source, fd: OwnedFd, kind: Kind) -> io::Result<()> {
        self.pipes.push(Open { source, pipe: pipe::Receiver::from_owned_fd(fd)?, splitter: Splitter::new(kind) });
        Ok(())
    }

    /// Waits for output and gives out the lines it completes; pends for ever when all pipes are closed. Cancelling loses nothing.
    pub(crate) async fn pump(&mut self, writer: &LogWriter, mut each: impl FnMut(Source, Line)) {
        writer.room().await;
        poll_fn(|context| self.poll(context, &mut each)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>, each: &mut impl FnMut(Source, Line)) -> Poll<()> {
        let mut any = Poll::Pending;
        let buffer = &mut self.buffer;
        self.pipes.retain_mut(|open| {
            let mut into = ReadBuf::new(buffer.as_mut_slice());
            let Poll::Ready(read) = Pin::new(&mut open.pipe).poll_read(context, &mut into) else { return true };
            any = Poll::Ready(());
            if read.is_err() || into.filled().is_empty() {
                open.finish(each);
                return false;
            }
            open.feed(into.filled(), each);
            true
        });
        any
    }

    /// Gives out what has been written already.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(Source, Line)) {
        let buffer = &mut self.buffer;
        self.pipes.retain_mut(|open| {
            let mut taken = 0;
            while taken < DRAIN_BYTES {
                match nix::unistd::read(&open.pipe, buffer.as_mut_slice()) {
                    Ok(0) => {
                        open.finish(&mut each);
                        return false;
                    }
                    Ok(count) => {
                        open.feed(buffer.get(..count).unwrap_or_default(), &mut each);
                        taken += count;
                    }
                    Err(Errno::EINTR) => {}
                    Err(_) => break,
                }
            }
            true
        });
    }

    /// Gives out what is there, half lines included, and closes the pipes.
    pub(crate) fn close(&mut self, mut each: impl FnMut(Source, Line)) {
        self.drain(&mut each);
        for mut pipe in self.pipes.drain(..) {
            pipe.finish(&mut each);
        }
    }
}

impl Open {
    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(Source, Line)) {
        let source = self.source;
        self.splitter.feed(bytes, |line| each(source, line));
    }

    fn finish(&mut self, each: &mut impl FnMut(Source, Line)) {
        if let Some(line) = self.splitter.finish() {
            each(self.source, line);
        }
    }
}
