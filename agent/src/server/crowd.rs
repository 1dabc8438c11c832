//! How many may be served at once? Accepts the connections of one listener, each as soon as there is room for it.
//!
//! Knows nothing of what is said on them, nor how long one may last: that is for whoever holds them.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Gives each connection to `hold`, at most `most` at a time, until `stop` turns true.
pub(super) async fn admit<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    most: usize,
    stop: &mut watch::Receiver<bool>,
    hold: impl Fn(TcpStream) -> F,
) {
    let room = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (Ok((stream, _)), Ok(permit)) = (accepted, Arc::clone(&room).acquire_owned().await) else {
            // Out of descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let served = hold(stream);
        tokio::spawn(async move {
            let _permit = permit;
            served.await;
        });
    }
}
