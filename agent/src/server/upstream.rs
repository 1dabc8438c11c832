//! `/cni` and `/delegate`: what upstream's shim and the dynamic-networks controller ask, one request and one answer.
//!
//! Delegates are run by the agent, where it may. Translates bytes to words and back, and decides nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tokio::sync::oneshot;

use super::routes::{Answer, Routes, decode, json, text};
use crate::fault::{CniError, code};
use crate::ops;
use crate::ops::hotplug::Asked;
use crate::ops::runner::HostRunner;
use crate::wire::{self, Call, InterfaceAttributes, MOST_STDIN, Step, UpstreamRequest};

/// What a request carries, once decoded.
struct Plain {
    env: BTreeMap<String, String>,
    config: String,
    attributes: InterfaceAttributes,
}

/// A verb of the runtime, through upstream's shim.
pub(super) async fn cni(routes: &Routes, request: Request<Incoming>) -> Answer {
    let (plain, runner) = match begin(routes, request).await {
        Ok(begun) => begun,
        Err(refusal) => return refusal,
    };
    let timeout_ms = u64::try_from(routes.context.settings.request_timeout.as_millis()).unwrap_or(u64::MAX);
    let Plain { env, config, .. } = plain;
    let Ok(admitted) = routes.admit(&env) else { return draining() };
    let call = Call {
        protocol: wire::PROTOCOL,
        oldest: None,
        shim: "upstream".into(),
        env,
        config,
        timeout_ms,
        again: false,
        netns_id: None,
    };
    let context = Arc::clone(&routes.context);
    carry(&runner, |mut runner| async move {
        let _admitted = admitted;
        Box::pin(ops::answer_in_newest(&context, call, &mut runner)).await
    })
    .await
}

/// One network of a running pod.
pub(super) async fn delegate(routes: &Routes, request: Request<Incoming>) -> Answer {
    let (plain, runner) = match begin(routes, request).await {
        Ok(begun) => begun,
        Err(refusal) => return refusal,
    };
    let Plain { env, config, attributes } = plain;
    let Ok(admitted) = routes.admit(&env) else { return draining() };
    let asked = Asked { env, config, attributes };
    let context = Arc::clone(&routes.context);
    carry(&runner, |mut runner| async move {
        let _admitted = admitted;
        Box::pin(ops::answer_delegate(&context, asked, &mut runner)).await
    })
    .await
}

async fn begin(routes: &Routes, request: Request<Incoming>) -> Result<(Plain, HostRunner), Answer> {
    let request: UpstreamRequest = decode(request).await?;
    let runner = routes.host.clone().ok_or_else(|| {
        refused(
            &CniError::new(
                code::NOT_AVAILABLE,
                "this agent may not run plugins on the host, which this request asks of it",
            )
            .remedy("add the host-exec component; pods need it not, with the agent's own multus-shim"),
        )
    })?;
    let folders = routes.context.settings.delegation.bin_dir.as_deref().unwrap_or("/opt/cni/bin");
    plain(request, folders).map(|plain| (plain, runner)).map_err(|error| refused(&error))
}

/// Decodes a request. Of the environment, which is the asker's whole one, the `CNI_*` variables count, and not its
/// `CNI_PATH`: plugins come from the daemon's own folders.
fn plain(request: UpstreamRequest, folders: &str) -> Result<Plain, CniError> {
    let config = base64::engine::general_purpose::STANDARD
        .decode(request.config.unwrap_or_default())
        .map_err(|error| CniError::new(code::DECODE, format!("decode the field config: {error}")))?;
    if config.len() > MOST_STDIN {
        return Err(CniError::new(code::IO, format!("the field config has more than {MOST_STDIN} bytes")));
    }
    let config = String::from_utf8(config)
        .map_err(|_error| CniError::new(code::DECODE, "decode the field config: it is not UTF-8"))?;
    let mut env: BTreeMap<String, String> =
        request.env.unwrap_or_default().into_iter().filter(|(key, _)| key.starts_with("CNI_")).collect();
    env.insert("CNI_PATH".into(), folders.into());
    let ifname = env.entry("CNI_IFNAME".into()).or_default();
    if ifname.is_empty() {
        "eth0".clone_into(ifname);
    }
    Ok(Plain { env, config, attributes: request.attributes.unwrap_or_default() })
}

/// Runs an operation beside the connection: when that ends, the operation learns that nobody waits any more, and ends
/// as it should rather than in the middle.
async fn carry<W: Future<Output = Step> + Send + 'static>(
    runner: &HostRunner,
    work: impl FnOnce(HostRunner) -> W,
) -> Answer {
    let (runner, asker) = runner.asked();
    let work = work(runner);
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        if tell.send(work.await).is_err() {
            tracing::info!("the answer found nobody: whoever asked is gone");
        }
    });
    let step = told.await;
    drop(asker);
    match step {
        Ok(Step::Done { output: Some(output) }) => match serde_json::from_str::<serde_json::Value>(&output) {
            Ok(result) => json(&serde_json::json!({ "Result": result })),
            Err(error) => refused(&CniError::new(code::INTERNAL, format!("print the result: {error}"))),
        },
        Ok(Step::Done { output: None }) => text(StatusCode::OK, ""),
        Ok(Step::Fail { error }) => refused(&error),
        Ok(Step::Run(_)) | Err(_) => {
            refused(&CniError::new(code::INTERNAL, "the operation ended without an answer; see the agent's log"))
        }
    }
}

/// Upstream's plugin does not wait: the runtime tries again.
fn draining() -> Answer {
    refused(&CniError::new(code::TRY_LATER, "the agent is being drained").remedy("try again when the next one serves"))
}

fn refused(error: &CniError) -> Answer {
    let mut answer = json(error);
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_whole_environment_the_cni_variables_count() {
        let request: UpstreamRequest = serde_json::from_str(
            r#"{"env":{"CNI_COMMAND":"ADD","CNI_PATH":"/evil","HOME":"/root","CNI_IFNAME":""},"config":"e30=","interfaceAttributes":null}"#,
        )
        .unwrap();
        let plain = plain(request, "/opt/cni/bin").unwrap();
        let env: Vec<_> = plain.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(env, ["CNI_COMMAND=ADD", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin"]);
        assert_eq!(plain.config, "{}");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for body in [r#"{"config":"%%"}"#, r#"{"config":"/w=="}"#] {
            let error = plain(serde_json::from_str(body).unwrap(), "/x").map(|_| ()).unwrap_err();
            assert_eq!(error.code, code::DECODE, "{body}");
        }
        let nothing = plain(serde_json::from_str(r#"{"env":null,"config":null}"#).unwrap(), "/x").unwrap();
        assert_eq!(nothing.config, "");
    }
}
