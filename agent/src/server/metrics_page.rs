//! `/metrics` on a TCP address: what Prometheus scrapes. Plain HTTP, reads only, bounded.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ops::context::Context;
use crate::server::crowd;
use crate::telemetry::exposition::{CONTENT_TYPE as TEXT, Exposition};

/// How long until an address that is taken is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(10);
/// Scrapes served at once.
const MOST_SCRAPES: usize = 8;
/// How long it may take to ask: whoever connects and says nothing keeps a scrape waiting no longer.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// How long one may take.
const SCRAPE_TIME: Duration = Duration::from_secs(10);

/// Serves scrapes on `metricsAddress`, where there is one, until `stop` turns true.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let Some(address) = context.settings.metrics_address else { return };
    let exposition = Arc::new(Exposition::new(&context));
    // Whoever has the address may be an agent on its way out.
    while let Err(error) = serve(address, &exposition, &context, &mut stop).await {
        let fault = format!("serve metrics on {address}: {error}");
        tracing::error!("{fault}");
        context.metrics_are(Some(fault));
        tokio::time::sleep(AGAIN).await;
    }
}

async fn serve(
    address: SocketAddr,
    exposition: &Arc<Exposition>,
    context: &Context,
    stop: &mut watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = listen(address).await?;
    context.metrics_are(None);
    let hold = |stream| {
        let exposition = Arc::clone(exposition);
        async move { hold(stream, &exposition).await }
    };
    crowd::admit(listener, MOST_SCRAPES, stop, hold).await;
    Ok(())
}

/// Answers the one scrape of a connection.
async fn hold(stream: TcpStream, exposition: &Exposition) {
    let service = service_fn(|request| answer(exposition, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(SCRAPE_TIME, connection).await;
}

/// Every address is that of IPv6, which has IPv4 too; but a kernel may have no IPv6 (`ipv6.disable=1`).
pub(super) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

#[expect(clippy::unused_async, reason = "hyper's services are asynchronous")]
async fn answer(exposition: &Exposition, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_scrape = request.uri().path() == "/metrics" && request.method() == Method::GET;
    let mut answer = Response::new(Full::default());
    match is_scrape.then(|| exposition.text()) {
        Some(Ok(text)) => {
            *answer.body_mut() = Full::new(Bytes::from(text));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        }
        Some(Err(_)) => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        None => *answer.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(answer)
}
