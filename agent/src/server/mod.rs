//! The edge: sockets in, operations called, answers out. Translates and nothing else.

pub mod body;
pub mod conversation;
mod crowd;
mod draining;
mod log_level;
mod looking;
pub mod metrics_page;
pub mod page;
mod query;
pub mod routes;
pub mod socket;
mod sysdump;
mod upstream;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use conversation::Conversation;
use routes::Routes;
use socket::Socket;

/// How long a new connection may take to send its first request; a half-sent one is closed then.
const FIRST_TIME: Duration = Duration::from_secs(10);

/// How often the socket's file is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// Serves `socket` until `stop` turns true, one conversation at a time per connection, and gives it back.
pub async fn serve(mut socket: Socket, routes: Arc<Routes>, mut stop: watch::Receiver<bool>) -> Socket {
    let mut look = tokio::time::interval(LOOK_AFTER);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => Some(accepted),
            _ = look.tick() => None,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(accepted) = accepted else {
            socket.look_after().await;
            continue;
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let routes = Arc::clone(&routes);
        tokio::spawn(async move {
            let _permit = permit;
            hold(stream, &routes).await;
        });
    }
    routes.stopping.store(true, Ordering::Relaxed);
    socket
}

/// Holds one connection to its end. Between two requests of a conversation a delegate runs, so that pause may be long;
/// the first request must come at once.
async fn hold(stream: UnixStream, routes: &Routes) {
    let talk = Conversation::default();
    let first = Notify::new();
    let service = service_fn(|request| {
        first.notify_one();
        routes.answer(&talk, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(routes.context.settings.request_timeout + FIRST_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        heard = tokio::time::timeout(FIRST_TIME, first.notified()) => match heard {
            Ok(()) => connection.await,
            Err(_elapsed) => return tracing::debug!("a connection without a request was closed"),
        },
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
