//! The writing of known peers: beside the loop, since a memory card may take a second. When to write is the node's decision.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Sleep, sleep};

use crate::core::KnownPeer;
use crate::edge::peerfile::PeerFile;

/// What is asked for within this time is one write.
const SETTLE: Duration = Duration::from_secs(2);

/// Writes the file of known peers when there is a reason to.
#[derive(Debug)]
pub(super) struct Remembering {
    file: PeerFile,
    due: Option<Pin<Box<Sleep>>>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// What was read or written last.
    stored: u64,
}

impl Remembering {
    /// With the peers that are in the file.
    pub(super) fn new(file: PeerFile, known: &[KnownPeer]) -> Self {
        Self { file, due: None, writing: None, stored: digest(known) }
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
        self.stored = digest(&peers);
        self.writing = Some(spawn_blocking(move || file.store(&peers)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The last write, before the end.
    pub(super) async fn finish(self, peers: &[KnownPeer]) -> io::Result<()> {
        let failed = match self.writing {
            Some(writing) => !matches!(writing.await, Ok(Ok(()))),
            None => false,
        };
        if failed || self.stored != digest(peers) { self.file.store(peers) } else { Ok(()) }
    }
}

fn digest(peers: &[KnownPeer]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for peer in peers {
        (peer.id, peer.name.as_str(), peer.pinned, &peer.addrs, peer.last_seen).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;
    use crate::id::NodeId;

    fn peer(seen: u64) -> KnownPeer {
        let last_seen = Some(Duration::from_secs(seen));
        let name = "pi".parse().unwrap();
        KnownPeer { id: NodeId([1; 32]), name, pinned: true, addrs: Vec::new(), last_seen }
    }

    /// Each write makes a new file.
    fn file(dir: &Path) -> Option<u64> {
        fs::metadata(dir.join("peers.json")).ok().map(|file| file.ino())
    }

    #[tokio::test]
    async fn the_end_writes_what_is_newer_than_the_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let remembering = |known: &[KnownPeer]| Remembering::new(PeerFile::new(dir.path()), known);
        remembering(&[]).finish(&[]).await.unwrap();
        assert_eq!(file(dir.path()), None);
        remembering(&[]).finish(&[peer(1)]).await.unwrap();
        let first = file(dir.path());
        assert!(first.is_some());
        remembering(&[peer(1)]).finish(&[peer(1)]).await.unwrap();
        assert_eq!(file(dir.path()), first);
        remembering(&[peer(1)]).finish(&[peer(2)]).await.unwrap();
        assert_eq!(PeerFile::new(dir.path()).load().0, [peer(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_within_a_moment_is_one_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut remembering = Remembering::new(PeerFile::new(dir.path()), &[]);
        for _ in 0..3 {
            remembering.changed();
        }
        let mut lists = 0;
        let written = std::future::poll_fn(|cx| {
            remembering.poll(cx, || {
                lists += 1;
                vec![peer(1)]
            })
        });
        written.await.unwrap();
        assert_eq!(lists, 1);
        let written = file(dir.path());
        remembering.finish(&[peer(1)]).await.unwrap();
        assert_eq!((file(dir.path()), written.is_some()), (written, true));
    }
}
