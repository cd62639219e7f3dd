//! The writing of known peers: beside the loop, since a memory card may take a second, and not at every change.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Sleep, sleep};

use crate::core::KnownPeer;
use crate::edge::peerfile::PeerFile;

/// Changes within this time are one write: a network that starts changes the list many times.
const SETTLE: Duration = Duration::from_secs(2);

/// Writes the file of known peers when there is a reason to.
#[derive(Debug)]
pub(super) struct Remembering {
    file: PeerFile,
    due: Option<Pin<Box<Sleep>>>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Remembering {
    pub(super) const fn new(file: PeerFile) -> Self {
        Self { file, due: None, writing: None }
    }

    /// The list changed.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Box::pin(sleep(SETTLE)));
    }

    /// Begins to write when it is time to; tells how a write went.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        list: impl FnOnce() -> Vec<KnownPeer>,
    ) -> Poll<io::Result<()>> {
        if let Some(writing) = &mut self.writing {
            let outcome = std::task::ready!(Pin::new(writing).poll(cx));
            self.writing = None;
            cx.waker().wake_by_ref();
            return Poll::Ready(outcome.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
        let Some(due) = &mut self.due else { return Poll::Pending };
        std::task::ready!(due.as_mut().poll(cx));
        self.due = None;
        let (file, peers) = (self.file.clone(), list());
        self.writing = Some(spawn_blocking(move || file.store(&peers)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The last write, before the end.
    pub(super) async fn finish(self, peers: &[KnownPeer]) -> io::Result<()> {
        if let Some(writing) = self.writing {
            let _ = writing.await;
        }
        if self.due.is_some() { self.file.store(peers) } else { Ok(()) }
    }
}
