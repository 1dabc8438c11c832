//! The agent's Unix socket: who may connect, how many, for how long, and whose file it is.
//!
//! The socket is bound beside its name and renamed over it, so that there is never a moment without one; while it is served
//! its file is looked after, and at the end it is removed only if it is still ours.

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

/// How long another daemon's socket may take to say that there is somebody.
const HEARD: Duration = Duration::from_millis(50);

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// Somebody else's socket is in our place, and that was said.
    is_covered: bool,
    room: Arc<Semaphore>,
    most: usize,
}

impl Socket {
    /// Binds `multus.sock` in `folder`, which is made 0700 if it is missing. One that is there for nothing else becomes so.
    pub fn bind(folder: &Path, connection_limit: Option<usize>) -> io::Result<Self> {
        let path = folder.join(wire::SOCKET);
        let (listener, inode) = listen(folder, &path)?;
        let most = connection_limit.unwrap_or(MOST_CONNECTIONS);
        Ok(Self { listener, path, inode, is_covered: false, room: Arc::new(Semaphore::new(most)), most })
    }

    /// Is the file still there, and ours? A daemon that starts or ends in the same folder may take it away, as Multus's
    /// does; then it is bound again. What another has bound there stays for as long as somebody listens, and is told once.
    pub async fn look_after(&mut self) {
        match fs::metadata(&self.path) {
            Ok(file) if file.ino() == self.inode => self.is_covered = false,
            Ok(_) if is_dead(&self.path).await => self.bind_again(),
            Ok(_) if self.is_covered => {}
            Ok(_) => {
                self.is_covered = true;
                tracing::error!("another daemon has bound {}: CNI requests go there", self.path.display());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.bind_again(),
            Err(error) => tracing::debug!("look at {}: {error}", self.path.display()),
        }
    }

    fn bind_again(&mut self) {
        let Some(folder) = self.path.parent() else { return };
        match listen(folder, &self.path) {
            Ok((listener, inode)) => {
                (self.listener, self.inode, self.is_covered) = (listener, inode, false);
                tracing::warn!("somebody took {} away; it is bound again", self.path.display());
            }
            Err(error) => tracing::error!("bind {} again: {error}", self.path.display()),
        }
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

/// A listener at `path` in `folder`, and the inode of its file.
fn listen(folder: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
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
    // As the kubelet makes it for a pod: 0755.
    if owner.uid() == own_uid() && owner.mode() & 0o077 != 0 && is_for_sockets_alone(folder)? {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let beside = folder.join(format!("{}.{}", wire::SOCKET, std::process::id()));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    let inode = fs::metadata(&beside)?.ino();
    fs::rename(&beside, path)?;
    Ok((listener, inode))
}

/// Has nobody anything in this folder but sockets of our name? `/run` itself must stay open to all.
fn is_for_sockets_alone(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if !entry?.file_name().to_string_lossy().starts_with(wire::SOCKET) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Was this socket left behind by a daemon that is gone? Whoever listens is not held up: the connection ends at once.
async fn is_dead(path: &Path) -> bool {
    let heard = tokio::time::timeout(HEARD, UnixStream::connect(path)).await;
    heard.is_ok_and(|heard| heard.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
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

    #[tokio::test]
    async fn a_folder_for_it_alone_is_closed_to_others_and_a_shared_one_stays_as_it_is() {
        for (name, neighbour, wanted) in [("alone", wire::SOCKET, 0o700), ("shared", "containerd", 0o755)] {
            let folder = folder(name);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(folder.join(neighbour), "").unwrap();
            let socket = Socket::bind(&folder, None).unwrap();
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, wanted, "{name}");
            drop(socket);
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[tokio::test]
    async fn what_somebody_removes_is_bound_again_and_what_another_binds_stays() {
        let folder = folder("removed");
        let mut socket = Socket::bind(&folder, None).unwrap();
        let path = folder.join(wire::SOCKET);
        socket.look_after().await;
        let first = fs::metadata(&path).unwrap().ino();
        assert_eq!(first, socket.inode);
        fs::remove_dir_all(&folder).unwrap();
        socket.look_after().await;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (mut client, accepted) = (UnixStream::connect(&path).await.unwrap(), socket.accept().await);
        let (mut ours, _permit) = accepted.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"heard").await.unwrap();
        let mut heard = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut ours, &mut heard).await.unwrap();

        fs::remove_file(&path).unwrap();
        let another = UnixListener::bind(&path).unwrap();
        let theirs = fs::metadata(&path).unwrap().ino();
        socket.look_after().await;
        assert_eq!(fs::metadata(&path).unwrap().ino(), theirs);
        // Killed, it leaves its file behind.
        drop(another);
        socket.look_after().await;
        assert_eq!(fs::metadata(&path).unwrap().ino(), socket.inode);
        fs::remove_file(&path).unwrap();
        let _another = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "somebody else's");
        fs::remove_dir_all(folder).unwrap();
    }
}
