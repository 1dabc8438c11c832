//! NetworkAttachmentDefinitions: what they are made of, what they sit on, which addresses they give.

use super::{NEEDS_AGENT, install};
use crate::diagnosis::facts::{Agent, Pool};
use crate::diagnosis::{Facts, Problem, Verdict};
use crate::fault::quote;

/// Below this share of free addresses a range is low.
const LOW_PERCENT: u128 = 10;

fn agent(facts: &Facts) -> Result<&Agent, Verdict> {
    facts.agent.as_ref().ok_or(Verdict::Skipped(NEEDS_AGENT))
}

fn judged(facts: &Facts, problems: impl FnOnce(&Agent) -> Vec<Problem>) -> Verdict {
    agent(facts).map_or_else(|skipped| skipped, |agent| Verdict::of(problems(agent)))
}

pub(in crate::diagnosis) fn config(facts: &Facts) -> Verdict {
    judged(facts, |agent| {
        let wrong = agent.networks.iter().filter_map(|network| network.problem.as_ref());
        wrong.map(|(cause, remedy)| Problem::new(cause, remedy)).collect()
    })
}

pub(in crate::diagnosis) fn plugins(facts: &Facts) -> Verdict {
    let agent = match agent(facts) {
        Ok(agent) => agent,
        Err(skipped) => return skipped,
    };
    let missing = |network: &crate::diagnosis::facts::Network| {
        install::missing(facts, &format!("network {}", network.name), &network.plugins)
    };
    match agent.networks.iter().map(missing).collect::<Option<Vec<_>>>() {
        None => Verdict::Skipped("the folder of plugins cannot be seen from here"),
        Some(problems) => Verdict::of(problems.into_iter().flatten().collect()),
    }
}

/// One problem for each network whose parent is as `is_wrong` says, where there is one by name.
fn parents(facts: &Facts, cause: &str, remedy: &str, is_wrong: fn(Option<&(bool, bool)>) -> bool) -> Verdict {
    judged(facts, |agent| {
        let named = agent.networks.iter().filter_map(|network| Some((&network.name, network.parent.as_ref()?)));
        let wrong = named.filter(|(_, (_, parent))| !parent.is_empty() && is_wrong(agent.links.get(parent)));
        let problem = |(name, (kind, parent)): (&String, &(String, String))| {
            Problem::new(format!("network {name}: master {} of its {kind} plugin {cause}", quote(parent)), remedy)
        };
        wrong.map(problem).collect()
    })
}

pub(in crate::diagnosis) fn parents_exist(facts: &Facts) -> Verdict {
    let remedy = "correct \"master\" in the network, or make the link on this node; pods with it are refused here";
    parents(facts, "does not exist on this node", remedy, |link| link.is_none())
}

pub(in crate::diagnosis) fn parents_up(facts: &Facts) -> Verdict {
    let remedy = "set it up (ip link set LINK up), and let the host's network configuration do so at boot";
    parents(facts, "is down", remedy, |link| link.is_some_and(|(up, _)| !up))
}

pub(in crate::diagnosis) fn carrier(facts: &Facts) -> Verdict {
    let remedy = "look at the cable, the switch port, or the link below it";
    parents(facts, "has no carrier", remedy, |link| link.is_some_and(|(up, carrier)| *up && !carrier))
}

pub(in crate::diagnosis) fn ranges(facts: &Facts) -> Verdict {
    judged(facts, |agent| {
        let problem = |(network, why): &(String, String)| {
            Problem::new(
                format!("network {network}: {why}"),
                "correct the range: host-local refuses it at the first pod",
            )
        };
        agent.bad_ranges.iter().map(problem).collect()
    })
}

pub(in crate::diagnosis) fn overlap(facts: &Facts) -> Verdict {
    let remedy = "give each network a range of its own, or let both be one network: host-local knows of its own network's addresses alone";
    judged(facts, |agent| agent.overlaps.iter().map(|text| Problem::new(text, remedy)).collect())
}

/// How many are free, and how full it is in words.
fn fill(pool: &Pool) -> (u128, String) {
    let used = pool.used;
    let free = pool.total.saturating_sub(used);
    let strange = match pool.strange {
        0 => String::new(),
        some => format!(", {some} of them by containers that are not on record"),
    };
    (
        free,
        format!("network {}: {used} of {} addresses of {} are in use{strange}", pool.network, pool.total, pool.ranges),
    )
}

fn pool_remedy(pool: &Pool) -> String {
    let enlarge = "enlarge the range in the network's ipam, or delete pods that need none";
    if pool.strange == 0 {
        enlarge.to_owned()
    } else {
        format!(
            "{enlarge}; addresses of containers that are gone are files in {} with the container's id in them: remove those",
            pool.folder
        )
    }
}

pub(in crate::diagnosis) fn exhausted(facts: &Facts) -> Verdict {
    let verdict = judged(facts, |agent| {
        let full = agent.pools.iter().map(|pool| (pool, fill(pool))).filter(|(_, (free, _))| *free == 0);
        full.map(|(pool, (_, text))| Problem::new(format!("{text}: the next pod is refused"), pool_remedy(pool)))
            .collect()
    });
    let unseen = facts.agent.iter().flat_map(|agent| &agent.pools).find(|pool| !pool.is_seen);
    match (verdict, unseen) {
        (Verdict::Fine(_), Some(pool)) => Verdict::Fine(format!(
            "counted by the agent's records; what containers left behind in {} is not seen: mount that folder read-only \
             into the agent's pod to have it counted, too",
            quote(&pool.folder)
        )),
        (verdict, _) => verdict,
    }
}

pub(in crate::diagnosis) fn low(facts: &Facts) -> Verdict {
    judged(facts, |agent| {
        let known = agent.pools.iter().map(|pool| (pool, fill(pool)));
        let is_low =
            |pool: &Pool, free: u128| free > 0 && free.saturating_mul(100) < pool.total.saturating_mul(LOW_PERCENT);
        known
            .filter(|(pool, (free, _))| is_low(pool, *free))
            .map(|(pool, (_, text))| Problem::new(text, pool_remedy(pool)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::facts::Network;

    fn node(change: impl FnOnce(&mut Agent)) -> Facts {
        let mut agent = Agent::default();
        change(&mut agent);
        Facts { agent: Some(agent), ..Facts::default() }
    }

    fn is_wrong(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wrong(_))
    }

    #[test]
    fn parents_by_existence_state_and_carrier() {
        let links = [("up0", (true, true)), ("down0", (false, false)), ("idle0", (true, false))];
        for (parent, exists, up, carried) in [
            ("up0", true, true, true),
            ("down0", true, false, true),
            ("idle0", true, true, false),
            ("eth9", false, true, true),
            ("", true, true, true),
        ] {
            let facts = node(|agent| {
                agent.links = links.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect();
                let parent = Some(("macvlan".to_owned(), parent.to_owned()));
                agent.networks = vec![Network { name: "a/b".into(), parent, ..Network::default() }];
            });
            assert_eq!(!is_wrong(&parents_exist(&facts)), exists, "{parent}");
            assert_eq!(!is_wrong(&parents_up(&facts)), up, "{parent}");
            assert_eq!(!is_wrong(&carrier(&facts)), carried, "{parent}");
        }
    }

    #[test]
    fn ranges_run_low_and_out() {
        for (total, used, is_full, is_low) in [
            (10, 10, true, false),
            (10, 11, true, false),
            (10, 9, false, false),
            (100, 91, false, true),
            (100, 90, false, false),
            (u128::MAX, 5, false, false),
        ] {
            let facts = node(|agent| {
                agent.pools = vec![Pool {
                    network: "a/b".into(),
                    total,
                    used,
                    strange: 1,
                    folder: "/f".into(),
                    is_seen: true,
                    ..Pool::default()
                }];
            });
            assert_eq!((is_wrong(&exhausted(&facts)), is_wrong(&low(&facts))), (is_full, is_low), "{used} of {total}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_said_and_how_to_have_it_counted() {
        for (is_seen, says_so) in [(true, false), (false, true)] {
            let pool = Pool { total: 10, used: 1, folder: "/f/lan".into(), is_seen, ..Pool::default() };
            let Verdict::Fine(detail) = exhausted(&node(|agent| agent.pools = vec![pool.clone()])) else { panic!() };
            assert_eq!(detail.contains("\"/f/lan\" is not seen: mount"), says_so, "{detail}");
        }
    }

    #[test]
    fn a_missing_plugin_is_named_with_network_and_folder() {
        let mut facts = node(|agent| {
            agent.networks = vec![Network {
                name: "a/b".into(),
                plugins: vec!["macvlan".into(), "whereabouts".into()],
                ..Network::default()
            }];
        });
        assert!(matches!(plugins(&facts), Verdict::Skipped(_)));
        facts.install.bin_dir = "/opt/cni/bin".into();
        facts.install.plugins = Some(["macvlan".to_owned()].into());
        let Verdict::Wrong(problems) = plugins(&facts) else { panic!("nothing is missing") };
        assert_eq!(problems[0].cause, "network a/b: plugin \"whereabouts\" is not in \"/opt/cni/bin\"");
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn without_an_agent_nothing_is_claimed() {
        for judge in [config, plugins, parents_exist, ranges, overlap, exhausted, low] {
            assert!(matches!(judge(&Facts::default()), Verdict::Skipped(_)));
        }
    }
}
