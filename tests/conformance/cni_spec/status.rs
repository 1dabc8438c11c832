//! STATUS: whether ADD would be served (CNI 1.1.0, section 2).

use std::time::Duration;

use lab::Answer;
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Plan, said};

pub(super) const CLAUSES: &[Clause] = &[
    clause("cni.status.ready", "STATUS of a ready node succeeds and prints nothing", ready),
    clause("cni.status.bare", "STATUS needs no attachment: no container, no CNI_ARGS", bare),
    clause("cni.status.daemon-down", "without the daemon STATUS says 50 or 51 within two seconds", daemon_down),
    clause("cni.status.50", "a default network's plugin that says 50 makes the answer 50", || passes_on(50)),
    clause("cni.status.51", "a default network's plugin that says 51 makes the answer 51", || passes_on(51)),
    clause("cni.status.no-network", "without the default network's file STATUS says 50, soon", no_network),
    clause("cni.status.old-plugin", "a default network that has no STATUS is not asked for it", old_plugin),
    clause("cni.status.too-old", "before 1.1.0 there is no STATUS: code 1", too_old),
    clause("cni.status.informational", "when STATUS says no, other verbs are served all the same", informational),
    clause("cni.status.recovers", "STATUS says yes again once the reason is gone", recovers),
];

fn ready() {
    let node = Plan::new("c-status").version("1.1.0").start().when_ready();
    let answer = node.status();
    answer.expect_ok();
    assert_eq!(answer.done.out().trim(), "");
}

fn bare() {
    let node = Plan::new("c-status-bare").version("1.1.0").start().when_ready();
    let call = node.call("STATUS", None);
    assert!(!call.env.contains_key("CNI_CONTAINERID") && !call.env.contains_key("CNI_ARGS"));
    node.run(&call).expect_ok();
    node.run(&call.var("CNI_ARGS", "")).expect_ok();
}

fn unavailable(answer: &Answer) -> u64 {
    let code = answer.error()["code"].as_u64().expect("a number");
    assert!(code == 50 || code == 51, "code {code}: {}", answer.describe());
    assert!(answer.done.took < Duration::from_secs(2), "STATUS took {:?}", answer.done.took);
    code
}

fn daemon_down() {
    let mut node = Plan::new("c-status-down").version("1.1.0").start();
    node.daemon.kill9();
    unavailable(&node.status());
}

fn passes_on(code: u64) {
    let plan = Plan::new(&format!("c-status-{code}")).version("1.1.0");
    let programme = json!({"STATUS": {"error": {"code": code, "msg": "no cable"}}});
    let node = plan.fake_primary("wired", "1.1.0", &programme).start().when_ready();
    let answer = node.status();
    assert!(said(&answer.error()).contains("no cable"), "{}", answer.describe());
    assert_eq!(unavailable(&answer), code);
}

fn no_network() {
    let plan = Plan::new("c-status-none").version("1.1.0");
    let file = plan.primary_file();
    let node = plan.start().when_ready();
    std::fs::remove_file(file).expect("remove the primary network's file");
    // "Within seconds": noticing a file that is gone may take a moment.
    let no = lab::wait_for(Duration::from_secs(5), || Some(node.status()).filter(|answer| !answer.ok()));
    unavailable(&no.expect("STATUS goes on saying yes"));
}

fn old_plugin() {
    let plan = Plan::new("c-status-old").version("1.1.0");
    let programme = json!({"STATUS": {"error": {"code": 4, "msg": "unknown command"}}});
    let node = plan.fake_primary("elder", "1.0.0", &programme).start().when_ready();
    node.status().expect_ok();
    assert_eq!(node.verbs("elder"), [""; 0]);
}

fn too_old() {
    let node = Plan::new("c-status-too-old").version("1.0.0").start();
    let error = node.status().error();
    assert_eq!(error["code"], 1, "{error}");
}

fn informational() {
    let plan = Plan::new("c-status-info").version("1.1.0");
    let programme = json!({"*": {"link": true}, "STATUS": {"error": {"code": 50, "msg": "no"}}});
    let node = plan.fake_primary("shy", "1.1.0", &programme).start().when_ready();
    assert!(!node.status().ok());
    let pod = node.attached("cam", "lan");
    node.check(&pod).expect_ok();
    node.del(&pod).expect_ok();
}

fn recovers() {
    let plan = Plan::new("c-status-again").version("1.1.0");
    let healed = plan.lab.dir.join("healed");
    let programme = json!({"STATUS": {"error": {"code": 50, "msg": "no"}, "until": healed}});
    let mut node = plan.fake_primary("ill", "1.1.0", &programme).start().when_ready();
    assert!(!node.status().ok());
    std::fs::write(&healed, "").expect("heal the plugin");
    node.status().expect_ok();
    node.daemon.kill9();
    node.daemon.start_again(&node.lab);
    let node = node.when_ready();
    node.status().expect_ok();
}
