//! The API server, or the folder that stands in for it.

use super::NEEDS_AGENT;
use crate::diagnosis::facts::Cluster;
use crate::diagnosis::{Facts, Problem, Verdict};
use crate::fault::many;

const NO_API: &str = "no API server is used";

/// The cluster, where an API server is used.
fn api(facts: &Facts) -> Result<&Cluster, Verdict> {
    match &facts.agent {
        None => Err(Verdict::Skipped(NEEDS_AGENT)),
        Some(agent) if agent.cluster.source == "api" => Ok(&agent.cluster),
        Some(_) => Err(Verdict::Skipped(NO_API)),
    }
}

fn is_refusal(error: &str) -> bool {
    ["403", "401", "forbidden", "Forbidden", "Unauthorized"].iter().any(|word| error.contains(word))
}

pub(in crate::diagnosis) fn reachable(facts: &Facts) -> Verdict {
    let cluster = match api(facts) {
        Ok(cluster) => cluster,
        Err(verdict) => return verdict,
    };
    let ago = cluster.last_contact.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"));
    let error = cluster.last_error.as_deref().unwrap_or("no answer yet");
    // Who refuses answers.
    if cluster.connected || is_refusal(error) {
        return Verdict::Fine(format!("last contact {ago}"));
    }
    Verdict::wrong(
        format!("the API server does not answer (last contact {ago}): {error}"),
        "see whether this node reaches the address in the kubeconfig; pods are attached meanwhile with the networks kept on disk, and their status is written later",
    )
}

pub(in crate::diagnosis) fn allowed(facts: &Facts) -> Verdict {
    let cluster = match api(facts) {
        Ok(cluster) => cluster,
        Err(verdict) => return verdict,
    };
    match cluster.last_error.as_deref().filter(|error| is_refusal(error)) {
        None => Verdict::fine(),
        Some(error) => Verdict::wrong(
            format!("the API server refuses: {error}"),
            "compare the ClusterRole of the agent's service account with the one in the manifests, and its token",
        ),
    }
}

pub(in crate::diagnosis) fn synced(facts: &Facts) -> Verdict {
    let cluster = match api(facts) {
        Ok(cluster) => cluster,
        Err(verdict) => return verdict,
    };
    let known = facts.agent.as_ref().map_or(0, |agent| agent.networks.len());
    if cluster.synced {
        return Verdict::Fine(many(known, "network"));
    }
    Verdict::wrong(
        format!("no list of networks was read since the start: the {known} known ones are those kept on disk"),
        "see api-reachable and api-rbac, and whether the NetworkAttachmentDefinition CRD is installed",
    )
}

pub(in crate::diagnosis) fn reports(facts: &Facts) -> Verdict {
    match api(facts) {
        Err(verdict) => verdict,
        Ok(cluster) if cluster.reports_pending == 0 => Verdict::fine(),
        Ok(cluster) => Verdict::wrong(
            format!("not written yet: {}", many(cluster.reports_pending, "network-status annotation")),
            "they are tried again until done; if they stay, see api-reachable and api-rbac (patch pods/status)",
        ),
    }
}

pub(in crate::diagnosis) fn manifests(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    if agent.cluster.source != "folder" {
        return Verdict::Skipped("no folder of manifests is used");
    }
    let problem = |text: &String| Problem::new(text, "correct the manifest (multus-agent lint finds more)");
    Verdict::of(agent.cluster.refusals.iter().map(problem).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::facts::Agent;

    fn node(cluster: Cluster) -> Facts {
        Facts { agent: Some(Agent { cluster, ..Agent::default() }), ..Facts::default() }
    }

    fn cluster(connected: bool, error: Option<&str>) -> Cluster {
        let last_error = error.map(str::to_owned);
        Cluster { source: "api", connected, last_contact: Some(90), last_error, synced: true, ..Cluster::default() }
    }

    #[test]
    fn away_and_refusing_are_two_things() {
        for (connected, error, away, refused) in [
            (true, None, false, false),
            (false, Some("connect: refused (os error 111)"), true, false),
            (false, Some("list networks: 403: forbidden"), false, true),
            (true, Some("patch pod: 403"), false, true),
            (false, None, true, false),
        ] {
            let facts = node(cluster(connected, error));
            assert_eq!(matches!(reachable(&facts), Verdict::Wrong(_)), away, "{error:?}");
            assert_eq!(matches!(allowed(&facts), Verdict::Wrong(_)), refused, "{error:?}");
        }
    }

    #[test]
    fn what_waits_and_what_is_not_known_is_said() {
        let facts = node(Cluster { synced: false, reports_pending: 3, ..cluster(true, None) });
        assert!(matches!(synced(&facts), Verdict::Wrong(_)) && matches!(reports(&facts), Verdict::Wrong(_)));
        let facts = node(Cluster { source: "folder", refusals: vec!["a: b".into()], ..Cluster::default() });
        assert!(matches!(synced(&facts), Verdict::Skipped(_)) && matches!(manifests(&facts), Verdict::Wrong(_)));
    }
}
