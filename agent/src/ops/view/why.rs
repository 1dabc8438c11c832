//! Why pods hear, or do not hear, what somebody announces: one chain for each interface on a parent.

use std::sync::Arc;

use serde::Serialize;

use super::API_VERSION;
use crate::ops::context::Context;
use crate::ops::why::{self, Found, Question};
use crate::relay::why::{Facts, Judgement, judge};

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct WhyView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub name: String,
    pub protocol: String,
    pub pod: Option<String>,
    pub seen: Option<bool>,
    pub verdict: String,
    pub remedy: String,
    pub left_out: usize,
    pub items: Vec<ChainView>,
}

/// One interface's chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ChainView {
    pub pod: String,
    pub interface: String,
    pub network: String,
    pub parent: String,
    pub seen: Option<bool>,
    pub verdict: String,
    pub remedy: String,
    pub similar: Vec<String>,
    pub steps: Vec<ChainStepView>,
}

/// One link of a chain.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ChainStepView {
    pub name: &'static str,
    pub state: &'static str,
    pub text: String,
}

/// Why pods hear, or do not hear, what is asked for.
pub async fn why(context: &Arc<Context>, question: Question) -> WhyView {
    let found = why::gather(context, &question).await;
    let mut items: Vec<ChainView> = found.facts.iter().map(|facts| chain(facts, judge(facts))).collect();
    let rank = |item: &ChainView| match item.seen {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    };
    let pod = question.pod.map(|(namespace, name)| format!("{namespace}/{name}"));
    // What is asked of a pod is whether it hears it at all; of nobody in particular, whether everybody does.
    let decisive = match pod {
        Some(_) => items.iter().max_by_key(|item| rank(item)),
        None => items.iter().min_by_key(|item| rank(item)),
    };
    let (seen, verdict, remedy) = match decisive {
        Some(item) => (item.seen, item.verdict.clone(), item.remedy.clone()),
        None => nowhere(pod.as_deref(), &question.protocol, &found),
    };
    items.sort_by_key(rank);
    WhyView {
        api_version: API_VERSION,
        kind: "RelayWhy",
        name: question.name,
        protocol: question.protocol,
        pod,
        seen,
        verdict,
        remedy,
        left_out: found.left_out,
        items,
    }
}

/// What there is to say without any interface to say it of.
fn nowhere(pod: Option<&str>, protocol: &str, found: &Found) -> (Option<bool>, String, String) {
    let Some(pod) = pod else {
        let verdict = "no pod of this node has an interface on a parent that was asked for".to_owned();
        return (Some(false), verdict, "see multus-agent get attachments".to_owned());
    };
    if !found.knows_pod {
        let verdict = format!("this agent has not attached {pod}");
        return (Some(false), verdict, "ask the agent of the node that the pod runs on".to_owned());
    }
    if !found.reflected_from.is_empty() {
        let uplinks = found.reflected_from.join(", ");
        return (None, format!("{protocol} is reflected from {uplinks} to {pod}'s own interface"), String::new());
    }
    (
        Some(false),
        format!("{pod} has no interface on a parent that was asked for: it is on no LAN"),
        "attach it to a macvlan network, or have the protocol reflected to it".to_owned(),
    )
}

fn chain(facts: &Facts, judged: Judgement) -> ChainView {
    let step =
        |step: crate::relay::why::Step| ChainStepView { name: step.name, state: step.state.name(), text: step.text };
    ChainView {
        pod: facts.pod.clone(),
        interface: facts.interface.clone(),
        network: facts.network.clone(),
        parent: facts.parent.clone(),
        seen: judged.seen,
        verdict: judged.verdict,
        remedy: judged.remedy,
        similar: facts.similar.clone(),
        steps: judged.steps.into_iter().map(step).collect(),
    }
}
