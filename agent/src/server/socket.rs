//! The agent's Unix socket: who may connect, how many, for how long, and whose file it is.
//!
//! The socket is bound beside its name and renamed over it, so that there is never a moment without one; at the end
//! its file is removed only if it is still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::wire;

/// Connections served at once where `connectionLimit` says nothing; the rest wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 512;

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    room: Arc<Semaphore>,
    most: usize,
}

impl Socket {
    /// Binds `multus.sock` in `folder`, which is made 0700 if it is missing.
    pub fn bind(folder: &Path, connection_limit: Option<usize>) -> io::Result<Self> {
        if !folder.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let owner = fs::metadata(folder)?;
        if ![0, own_uid()].contains(&owner.uid()) || owner.mode() & 0o022 != 0 {
            let (uid, mode) = (owner.uid(), owner.mode() & 0o777);
            return Err(io::Error::other(format!(
                "socketDir {} belongs to user {uid} with mode {mode:o}, and no CNI plugin would trust it; make it root's, 0700",
                folder.display()
            )));
        }
        let path = folder.join(wire::SOCKET);
        let beside = folder.join(format!("{}.{}", wire::SOCKET, std::process::id()));
        let _ = fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        let inode = fs::metadata(&beside)?.ino();
        fs::rename(&beside, &path)?;
        let most = connection_limit.unwrap_or(MOST_CONNECTIONS);
        Ok(Self { listener, path, inode, room: Arc::new(Semaphore::new(most)), most })
    }

    /// The next connection of a peer that may speak to us: root, or whoever the agent runs as. The permit is held for
    /// as long as the connection lives.
    pub async fn accept(&self) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = self.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if uid == 0 || uid == own_uid() {
                return Ok((stream, permit));
            }
            tracing::warn!(uid, "a connection of another user was closed");
        }
    }
}

impl Socket {
    /// Gives up the socket and waits until every connection has ended, at most `patience`: answers on their way are
    /// heard.
    pub async fn close(self, patience: Duration) {
        let (room, most) = (Arc::clone(&self.room), self.most);
        drop(self);
        let all = room.acquire_many_owned(u32::try_from(most).unwrap_or(u32::MAX));
        let _ = tokio::time::timeout(patience, all).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn own_uid() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("multus-socket-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn a_folder_that_others_can_write_is_refused() {
        let folder = folder("open");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let refusal = Socket::bind(&folder, None).unwrap_err().to_string();
        assert!(refusal.contains("mode 777") && refusal.contains("0700"), "{refusal}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn the_newer_socket_survives_the_older_ones_end() {
        let folder = folder("two");
        let older = Socket::bind(&folder, None).unwrap();
        let newer = Socket::bind(&folder, None).unwrap();
        drop(older);
        assert!(folder.join(wire::SOCKET).exists());
        assert_eq!(fs::metadata(folder.join(wire::SOCKET)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        drop(newer);
        assert!(!folder.join(wire::SOCKET).exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
