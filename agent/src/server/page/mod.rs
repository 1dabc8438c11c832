//! The web page: what goes on here, for people with a browser and without Grafana. Plain HTTP, reads only, bounded.
//!
//! The page is made at most once a second, however many look at it, and not at all while nobody does.

mod graph;
mod hosts;
mod html;
mod rates;
mod sections;
mod snapshot;
mod words;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use self::hosts::Hosts;
use self::rates::Rates;
use self::snapshot::Snapshot;
use crate::ops::context::Context;
use crate::server::crowd;
use crate::server::metrics_page::{AGAIN, listen};

/// Connections served at once.
const MOST_CONNECTIONS: usize = 32;
/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// How long one may take with its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest request; hyper wants at least this much.
const MOST_REQUEST: usize = 8 * 1024;
/// How long a page is shown before it is made anew.
const FRESH: Duration = Duration::from_millis(900);

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// What the browser may do with the page: show it, with our own style, script and icon, and ask us again.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

type Answer = Response<Full<Bytes>>;

/// Serves the page on `pageAddress`, where there is one, until `stop` turns true.
pub async fn follow(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let Some(address) = context.settings.page_address else { return };
    let page = Arc::new(Page::of(Arc::clone(&context)));
    // Whoever has the address may be an agent on its way out.
    while let Err(error) = serve(address, &page, &mut stop).await {
        let fault = format!("serve the page on {address}: {error}");
        tracing::error!("{fault}");
        context.page_is(Some(fault));
        tokio::time::sleep(AGAIN).await;
    }
}

async fn serve(address: SocketAddr, page: &Arc<Page>, stop: &mut watch::Receiver<bool>) -> io::Result<()> {
    let listener = listen(address).await?;
    page.context.page_is(None);
    let hold = |stream| {
        let page = Arc::clone(page);
        async move { hold(stream, &page).await }
    };
    crowd::admit(listener, MOST_CONNECTIONS, stop, hold).await;
    Ok(())
}

/// Answers the one request of a connection.
async fn hold(stream: TcpStream, page: &Page) {
    let service = service_fn(async |request| Ok::<_, Infallible>(page.answer(&request)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MOST_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(ANSWER_TIME, connection).await;
}

/// What every connection shares.
struct Page {
    context: Arc<Context>,
    hosts: Hosts,
    last: Mutex<Last>,
}

/// The page as it was made last, and what the next one's rates follow from.
#[derive(Default)]
struct Last {
    made: Option<(Instant, Bytes)>,
    rates: Rates,
}

impl Page {
    fn of(context: Arc<Context>) -> Self {
        let hosts = Hosts::new(context.cluster.node_name().as_deref(), &context.settings.page_hosts);
        Self { hosts, last: Mutex::default(), context }
    }

    fn answer<B>(&self, request: &Request<B>) -> Answer {
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("\u{fffd}"));
        if let Err(refusal) = self.hosts.admit(host) {
            return plain(StatusCode::MISDIRECTED_REQUEST, &refusal);
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "this page is only to be read");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/" => answer(StatusCode::OK, "text/html; charset=utf-8", self.document()),
            "/page.css" => answer(StatusCode::OK, "text/css; charset=utf-8", Bytes::from_static(STYLE.as_bytes())),
            "/page.js" => {
                answer(StatusCode::OK, "text/javascript; charset=utf-8", Bytes::from_static(SCRIPT.as_bytes()))
            }
            "/icon.svg" => answer(StatusCode::OK, "image/svg+xml", Bytes::from_static(ICON.as_bytes())),
            _ => plain(StatusCode::NOT_FOUND, "there is nothing here; the page is at /"),
        }
    }

    fn document(&self) -> Bytes {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, document)) = last.made.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return document.clone();
        }
        let snapshot = Snapshot::take(&self.context, &mut last.rates);
        let document = Bytes::from(sections::document(&snapshot, &last.rates));
        last.made = Some((Instant::now(), document.clone()));
        document
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", Bytes::from(format!("{text}\n")))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}
