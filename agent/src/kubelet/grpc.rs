//! How one unary gRPC call is made over a Unix socket: HTTP/2, a five-byte head, protobuf, the status in the trailers.
//!
//! (gRPC over HTTP2, "Requests" and "Responses".) Never compresses, never streams, never outlives its [`Channel`].

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::fault::{escape, quote};

/// Most bytes of one answer: what Multus's client takes as well.
const MOST_BYTES: usize = 16 << 20;
/// The length-prefixed message's head: a flag for compression, and the length.
const HEAD: usize = 5;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// The server said no, in the protocol: its code and its message, quoted.
    Status(u32, String),
    /// There is no connection, or what came was not gRPC.
    Broken(String),
}

impl CallError {
    /// `RESOURCE_EXHAUSTED`: the kubelet takes only so many calls a second.
    pub(super) const EXHAUSTED: u32 = 8;

    pub(super) fn text(&self) -> String {
        match self {
            Self::Status(code, message) => format!("it answered with gRPC status {code}, {message}"),
            Self::Broken(reason) => reason.clone(),
        }
    }
}

/// A connection; it ends with this value.
pub(super) struct Channel {
    sender: SendRequest<Full<Bytes>>,
    work: JoinHandle<()>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Channel {
    /// Connects to the server at `socket`.
    pub(super) async fn open(socket: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(socket).await.map_err(|error| broken("connect", &error))?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| broken("begin HTTP/2", &error))?;
        // How the connection ends is told to whoever waits for an answer on it.
        let work = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, work })
    }

    /// Calls `method`, a path such as `/v1.PodResourcesLister/List`.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &'static str,
        question: &Q,
    ) -> Result<A, CallError> {
        let response = self.sender.send_request(request(method, question)?).await;
        let response = response.map_err(|error| broken("send the request", &error))?;
        expect_grpc(&response)?;
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = body.frame().await {
            match frame.map_err(|error| broken("read the answer", &error))?.into_data() {
                Ok(data) if bytes.len() + data.len() > HEAD + MOST_BYTES => {
                    return Err(CallError::Broken(format!("its answer is larger than {MOST_BYTES} bytes")));
                }
                Ok(data) => bytes.put(data),
                Err(frame) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
            }
        }
        // An answer without a body carries the status in its head ("Trailers-Only").
        check_status(trailers.get("grpc-status").map_or(&head.headers, |_| &trailers))?;
        let message = message(bytes.freeze())?;
        A::decode(message).map_err(|error| CallError::Broken(format!("its answer is not of {method}: {error}")))
    }
}

fn request<Q: Message>(method: &'static str, question: &Q) -> Result<Request<Full<Bytes>>, CallError> {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(question.encoded_len()).unwrap_or(u32::MAX));
    question.encode(&mut body).map_err(|error| CallError::Broken(format!("write the request: {error}")))?;
    Request::builder()
        .method(Method::POST)
        // The authority that Go's client uses for a Unix socket.
        .uri(format!("http://localhost{method}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))
        .map_err(|error| CallError::Broken(format!("write the request: {error}")))
}

fn expect_grpc<B>(response: &Response<B>) -> Result<(), CallError> {
    let kind = response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    if response.status() == 200 && kind.starts_with("application/grpc") {
        return Ok(());
    }
    let status = response.status().as_u16();
    Err(CallError::Broken(format!("it answered with HTTP status {status} and content type {}", quote(kind))))
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |value: Option<&HeaderValue>| {
        value.map_or(String::new(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match text(headers.get("grpc-status")).parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(CallError::Status(code, quote(&text(headers.get("grpc-message"))))),
        Err(_) => Err(CallError::Broken("its answer ended without a gRPC status".to_owned())),
    }
}

/// The one message of a body.
fn message(mut body: Bytes) -> Result<Bytes, CallError> {
    if body.len() < HEAD {
        return Err(CallError::Broken(format!("its answer has {} bytes, and no message", body.len())));
    }
    let (compressed, length) = (body.get_u8(), body.get_u32());
    if compressed != 0 {
        return Err(CallError::Broken("its answer is compressed, which nobody asked for".to_owned()));
    }
    if usize::try_from(length).ok() != Some(body.len()) {
        return Err(CallError::Broken(format!("its answer announces {length} bytes and has {}", body.len())));
    }
    Ok(body)
}

/// What failed, with the causes below it, which alone say what happened.
fn broken(action: &str, error: &dyn std::error::Error) -> CallError {
    let mut text = format!("{action}: {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    CallError::Broken(escape(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_and_plain() {
        let of = |bytes: &[u8]| message(Bytes::copy_from_slice(bytes)).map(|message| message.to_vec());
        assert_eq!(of(&[0, 0, 0, 0, 2, 7, 8]), Ok(vec![7, 8]));
        assert_eq!(of(&[0, 0, 0, 0, 0]), Ok(Vec::new()));
        for (bytes, says) in [
            (&[][..], "no message"),
            (&[0, 0, 0, 0][..], "no message"),
            (&[1, 0, 0, 0, 0][..], "compressed"),
            (&[0, 0, 0, 0, 2, 7][..], "announces 2 bytes and has 1"),
            (&[0, 0, 0, 0, 1, 7, 8][..], "announces 1 bytes and has 2"),
            (&[0, 255, 255, 255, 255, 7][..], "announces 4294967295 bytes"),
        ] {
            let error = of(bytes).unwrap_err().text();
            assert!(error.contains(says), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn a_status_is_read_or_missed() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(key, value)| (hyper::header::HeaderName::from_static(key), HeaderValue::from_static(value)))
                .collect();
            check_status(&headers)
        };
        assert_eq!(of(&[("grpc-status", "0")]), Ok(()));
        assert_eq!(of(&[("grpc-status", "12"), ("grpc-message", "no")]), Err(CallError::Status(12, "\"no\"".into())));
        assert!(matches!(of(&[]), Err(CallError::Broken(_))));
        assert!(matches!(of(&[("grpc-status", "x")]), Err(CallError::Broken(_))));
    }
}
