//! `trace`: what the last requests did, step by step, and how long each step took.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::output::{self, Format, Ink, Level, cell, paint, safe};
use crate::cli::{Agent, Ending, query};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent trace --pod default/cam        what was done for one pod
  multus-agent trace --failed                 what failed, with cause and remedy; also before a restart
  multus-agent trace --verb add --follow      every ADD as it comes
  multus-agent trace --last 1 -o json";

/// How often whoever follows looks for more.
const LOOK: Duration = Duration::from_millis(300);
/// How many steps stand for a request on one line.
const LONGEST: usize = 3;

/// Which requests are shown.
#[derive(Debug, Args)]
pub struct Wanted {
    /// Of this pod alone; without a slash, of this name in any namespace
    #[arg(long, help_heading = "Which requests", value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// About this network alone, as network-status names it
    #[arg(long, help_heading = "Which requests", value_name = "NETWORK")]
    network: Option<String>,
    /// With this verb alone
    #[arg(long, help_heading = "Which requests", ignore_case = true, value_parser = ["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"])]
    verb: Option<String>,
    /// Those that failed, or had a step that did
    #[arg(long, help_heading = "Which requests")]
    failed: bool,
    /// The newest so many of them
    #[arg(long, help_heading = "Which requests", value_name = "N", default_value_t = 20)]
    last: usize,
    /// Go on with new ones, until interrupted
    #[arg(long, short)]
    follow: bool,
}

impl Wanted {
    fn passes(&self, item: &Value) -> bool {
        let of_pod = |pod: &String| match pod.split_once('/') {
            Some((namespace, name)) => cell(item, "/namespace") == namespace && cell(item, "/pod") == name,
            None => cell(item, "/pod") == *pod,
        };
        self.pod.as_ref().is_none_or(of_pod)
            && self.network.as_ref().is_none_or(|network| has(item, &|step| is_about(step, network)))
            && self.verb.as_ref().is_none_or(|verb| cell(item, "/verb").eq_ignore_ascii_case(verb))
            && (!self.failed || level(item) != Level::Good)
    }
}

fn steps(item: &Value) -> &[Value] {
    item.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Is it so of any step?
fn has(item: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    steps(item).iter().any(|step| test(step) || has(step, test))
}

/// The network by its whole name, or by that within its namespace.
fn is_about(step: &Value, network: &str) -> bool {
    let name = cell(step, "/network");
    name == network || name.rsplit_once('/').is_some_and(|(_, name)| name == network)
}

fn has_failed(step: &Value) -> bool {
    step.get("failed").and_then(Value::as_bool).unwrap_or(false)
}

fn level(item: &Value) -> Level {
    match cell(item, "/code").as_str() {
        "0" if has(item, &has_failed) => Level::Warning,
        "0" => Level::Good,
        _ => Level::Bad,
    }
}

/// Shows the last requests, and with `follow` those that come.
pub fn trace(agent: &Agent, format: Format, wanted: &Wanted) -> Ending {
    let mut since = 0;
    loop {
        let path = if since == 0 { "/v1/traces".to_owned() } else { format!("/v1/traces?since={since}") };
        let document = match query::document(&agent.socket, &path) {
            Ok(document) => document,
            Err(ending) => return ending,
        };
        let items = document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut shown: VecDeque<&Value> = items.iter().filter(|item| wanted.passes(item)).collect();
        // What is new is shown whole.
        while since == 0 && shown.len() > wanted.last {
            shown.pop_front();
        }
        let text = if wanted.follow { one_by_one(&shown, format) } else { all(&shown, format, &document) };
        if let Some(ending) = printed(&text) {
            return ending;
        }
        if !wanted.follow {
            return Ending::Fine;
        }
        // An agent that started anew counts on from where the last one was, as time does.
        since = document.get("next").and_then(Value::as_u64).unwrap_or(since).max(1);
        std::thread::sleep(LOOK);
    }
}

/// `None`: go on.
fn printed(text: &str) -> Option<Ending> {
    match output::write(text) {
        Ok(true) => None,
        Ok(false) => Some(Ending::Fine),
        Err(ending) => Some(ending),
    }
}

fn all(items: &VecDeque<&Value>, format: Format, document: &Value) -> String {
    let list = || json!({ "apiVersion": document["apiVersion"], "kind": document["kind"], "items": items, "next": document["next"] });
    match format {
        Format::Json => output::json(&list()),
        Format::Yaml => output::yaml(&list()),
        _ if items.is_empty() => "no such request is remembered\n".to_owned(),
        _ => one_by_one(items, format),
    }
}

/// Each by itself: as documents they are those that are on disk, too.
fn one_by_one(items: &VecDeque<&Value>, format: Format) -> String {
    let document = |item: &Value| {
        let mut document = item.clone();
        if let Some(fields) = document.as_object_mut() {
            fields.insert("apiVersion".to_owned(), "multus-ebpf.io/v1".into());
            fields.insert("kind".to_owned(), "Trace".into());
        }
        document
    };
    let one = |item: &&Value| match format {
        Format::Json => output::plain(&document(item).to_string()) + "\n",
        Format::Yaml => "---\n".to_owned() + &output::yaml(&document(item)),
        Format::Name => cell(item, "/number") + "\n",
        Format::Table => tree(item, false),
        Format::Wide => tree(item, true),
    };
    items.iter().map(one).collect()
}

/// The request, and below it its steps.
fn tree(item: &Value, wide: bool) -> String {
    let mut text = format!("{} {}\n", level(item).mark(), paint(&title(item), Ink::Strong));
    branch(item, 0, wide, &mut text);
    let omitted = cell(item, "/omitted");
    if !["", "0"].contains(&omitted.as_str()) {
        let _infallible = writeln!(text, "{:>14}  and {omitted} more", "");
    }
    if let Some(status) = item.get("networkStatus").filter(|status| !status.is_null()) {
        let took = status.get("tookUs").and_then(Value::as_u64).map(millis).unwrap_or_default();
        let (state, retries) = (cell(status, "/state"), cell(status, "/retries"));
        let tries = if retries == "0" { String::new() } else { format!(", failed tries before: {retries}") };
        let _infallible = writeln!(text, "{took:>11}  beside: network-status {state}{tries}");
    }
    for (head, pointer) in [("error", "/error"), ("remedy", "/remedy")] {
        let said = cell(item, pointer);
        if !said.is_empty() {
            let ink = if head == "error" { Ink::Bad } else { Ink::Strong };
            let _infallible = writeln!(text, "{:>13}{}: {}", "", paint(head, ink), safe(&said));
        }
    }
    text + "\n"
}

fn title(item: &Value) -> String {
    let [verb, namespace, pod, interface, code, time] =
        ["/verb", "/namespace", "/pod", "/interface", "/code", "/time"].map(|pointer| safe(&cell(item, pointer)));
    let took = item.get("tookUs").and_then(Value::as_u64).map(millis).unwrap_or_default();
    let who = match (pod.is_empty(), interface.is_empty()) {
        (false, _) => format!(" {namespace}/{pod}"),
        (true, false) => format!(" {}", safe(&cell(item, "/container")).chars().take(12).collect::<String>()),
        (true, true) => String::new(),
    };
    let code = if code == "0" { String::new() } else { format!(", code {code}") };
    format!("{verb}{who}: {took}{code}, {time}")
}

fn branch(item: &Value, depth: usize, wide: bool, text: &mut String) {
    for step in steps(item) {
        let number = |key: &str| step.get(key).and_then(Value::as_u64).map(millis).unwrap_or_default();
        let at = if wide { format!("{:>11}", format!("+{}", number("atUs"))) } else { String::new() };
        let mark = if has_failed(step) { Level::Bad.mark() } else { " ".to_owned() };
        let _infallible =
            writeln!(text, "{at}{:>11} {mark} {}{}", number("tookUs"), "  ".repeat(depth), described(step));
        branch(step, depth + 1, wide, text);
    }
}

fn described(step: &Value) -> String {
    let [stage, network, plugin, verb, interface, exit, note] =
        ["/stage", "/network", "/plugin", "/verb", "/interface", "/exit", "/note"]
            .map(|pointer| safe(&cell(step, pointer)));
    let mut words = vec![stage];
    words.extend([network, plugin, verb].into_iter().filter(|word| !word.is_empty()));
    if !interface.is_empty() {
        words.push(format!("on {interface}"));
    }
    if !["", "0"].contains(&exit.as_str()) {
        words.push(format!("exit {exit}"));
    }
    let text = words.join(" ");
    if note.is_empty() { text } else { format!("{text}: {note}") }
}

/// How long a request took, in words.
pub(super) fn took(item: &Value) -> String {
    item.get("tookUs").and_then(Value::as_u64).map(millis).unwrap_or_default()
}

/// The steps of a request that took longest, without what is inside them, and those that failed: `delegate macvlan ADD
/// 12.3 ms, plan 0.20 ms`.
pub(super) fn longest(item: &Value) -> String {
    let mut all = Vec::new();
    leaves(item, &mut all);
    all.sort_by_key(|step| (!has_failed(step), std::cmp::Reverse(step.get("tookUs").and_then(Value::as_u64))));
    let one = |step: &&Value| {
        let [stage, network, plugin] = ["/stage", "/network", "/plugin"].map(|pointer| cell(step, pointer));
        let failed = if has_failed(step) { " failed" } else { "" };
        [stage, network, plugin, took(step)]
            .iter()
            .filter(|word| !word.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
            + failed
    };
    all.iter().take(LONGEST).map(one).collect::<Vec<_>>().join(", ")
}

fn leaves<'a>(item: &'a Value, found: &mut Vec<&'a Value>) {
    for step in steps(item) {
        if steps(step).is_empty() {
            found.push(step);
        }
        leaves(step, found);
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 microseconds")]
fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        10_000..10_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Value {
        json!({
            "number": 7, "time": "2026-01-02T03:04:05.678Z", "verb": "ADD", "namespace": "default", "pod": "cam",
            "interface": "eth0", "code": 7, "error": "no\u{1b}[2J", "remedy": "do", "tookUs": 12_345, "omitted": 3,
            "steps": [
                {"stage": "plan", "atUs": 1, "tookUs": 900},
                {"stage": "network", "network": "default/lan", "interface": "net1", "atUs": 2, "tookUs": 9_000, "failed": true,
                 "steps": [{"stage": "delegate", "plugin": "macvlan", "verb": "ADD", "interface": "net1", "exit": 1,
                            "failed": true, "note": "no such device", "atUs": 3, "tookUs": 20_000_000}]}],
            "networkStatus": {"state": "written", "tookUs": 1_000, "retries": 2}
        })
    }

    #[test]
    fn a_request_is_a_tree_with_its_cause_and_remedy() {
        let wanted = "\
× ADD default/cam: 12.3 ms, code 7, 2026-01-02T03:04:05.678Z
    0.90 ms   plan
    9.00 ms × network default/lan on net1
     20.0 s ×   delegate macvlan ADD on net1 exit 1: no such device
                and 3 more
    1.00 ms  beside: network-status written, failed tries before: 2
             error: no\\u{1b}[2J
             remedy: do

";
        assert_eq!(tree(&item(), false), wanted);
        assert!(tree(&item(), true).contains("   +0.00 ms    0.90 ms   plan"), "{}", tree(&item(), true));
    }

    #[test]
    fn one_line_names_what_failed_and_what_took_longest() {
        assert_eq!(longest(&item()), "delegate macvlan 20.0 s failed, plan 0.90 ms");
    }

    #[test]
    fn what_comes_one_by_one_is_a_document_each() {
        let item = item();
        let text = one_by_one(&VecDeque::from([&item, &item]), Format::Json);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let document: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&document["apiVersion"], &document["kind"]), (&json!("multus-ebpf.io/v1"), &json!("Trace")));
            assert_eq!(document["steps"], item["steps"]);
        }
    }

    #[test]
    fn requests_are_chosen_by_pod_network_verb_and_failure() {
        let base = || Wanted { pod: None, network: None, verb: None, failed: false, last: 20, follow: false };
        let text = |text: &str| Some(text.to_owned());
        let fine = json!({"verb": "DEL", "namespace": "x", "pod": "y", "code": 0, "steps": []});
        let half = json!({"verb": "DEL", "code": 0, "steps": [{"stage": "undo", "steps": [{"failed": true}]}]});
        for (wanted, passes) in [
            (base(), [true, true, true]),
            (Wanted { pod: text("default/cam"), ..base() }, [true, false, false]),
            (Wanted { pod: text("cam"), ..base() }, [true, false, false]),
            (Wanted { pod: text("other/cam"), ..base() }, [false, false, false]),
            (Wanted { network: text("default/lan"), ..base() }, [true, false, false]),
            (Wanted { network: text("lan"), ..base() }, [true, false, false]),
            (Wanted { network: text("default"), ..base() }, [false, false, false]),
            (Wanted { verb: text("del"), ..base() }, [false, true, true]),
            (Wanted { failed: true, ..base() }, [true, false, true]),
        ] {
            assert_eq!([&item(), &fine, &half].map(|item| wanted.passes(item)), passes, "{wanted:?}");
        }
        assert_eq!([&item(), &fine, &half].map(level), [Level::Bad, Level::Good, Level::Warning]);
    }
}
