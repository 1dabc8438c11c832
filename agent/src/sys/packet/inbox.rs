//! When does a packet socket have something? A socket that is waited for with tokio.

use std::io;

use tokio::io::unix::AsyncFd;

use super::{PacketSocket, Received, Statistics};

/// A packet socket in a runtime.
#[derive(Debug)]
pub struct Inbox {
    queue: AsyncFd<PacketSocket>,
}

impl Inbox {
    /// Takes the socket; must be called within a tokio runtime.
    ///
    /// # Errors
    /// The runtime's.
    pub fn new(socket: PacketSocket) -> io::Result<Self> {
        Ok(Self { queue: socket.awaited()? })
    }

    /// Waits for a frame and reads it into `buffer`; nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// As [`PacketSocket::receive`], but for `WouldBlock`.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let mut ready = self.queue.readable().await?;
            if let Ok(read) = ready.try_io(|queue| queue.get_ref().receive(buffer)) {
                return read;
            }
        }
    }

    /// As [`PacketSocket::statistics`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        self.queue.get_ref().statistics()
    }
}
