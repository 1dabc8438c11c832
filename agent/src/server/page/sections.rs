//! What is on the page, from top to bottom? One function for each section.
//!
//! Every list ends somewhere: what is left out is said, with the command that prints it.

use super::graph;
use super::html::Html;
use super::rates::{Counter, Rates};
use super::snapshot::{Frames, Parent, Snapshot, bytes, needs_a_look};
use super::words;
use crate::fault::many;
use crate::ops::view::{AttachmentView, Health, Line, NetworkView, RefusalView, ServiceView, State};

const MOST_REFUSALS: usize = 12;
const MOST_ATTACHMENTS: usize = 100;
const MOST_SERVICES: usize = 100;
const MOST_NETWORKS: usize = 50;
const MOST_PARENTS: usize = 8;

/// The whole document.
pub(super) fn document(snapshot: &Snapshot, rates: &Rates) -> String {
    let mut html = Html::default();
    let node = snapshot.node.as_deref().unwrap_or("this node");
    html.markup(concat!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">",
        "<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">",
        "<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>",
        "<link rel=\"stylesheet\" href=\"page.css\"><link rel=\"icon\" href=\"icon.svg\">",
        "<script src=\"page.js\" defer></script>",
    ));
    html.element("title", &[], |html| {
        html.name(node).markup(" · networks of pods");
    });
    html.markup("</head><body><main>");
    head(&mut html, snapshot, node);
    tiles(&mut html, snapshot, rates);
    status(&mut html, snapshot);
    refusals(&mut html, &snapshot.refusals);
    attachments(&mut html, &snapshot.attachments, rates);
    relay(&mut html, &snapshot.parents, rates);
    services(&mut html, &snapshot.services);
    networks(&mut html, &snapshot.networks);
    foot(&mut html, snapshot);
    html.markup("</main></body></html>\n");
    html.finish()
}

fn head(html: &mut Html, snapshot: &Snapshot, node: &str) {
    html.markup("<header>");
    html.element("h1", &[], |html| {
        html.name(node);
    });
    html.element("p", &[("class", &health(snapshot.status.health)), ("role", &"status")], |html| {
        html.markup(match snapshot.status.health {
            Health::Ok => "All is well",
            Health::Warning => "Needs a look",
            Health::Failed => "Something does not work",
        });
    });
    html.markup("</header>");
}

/// The figures at a glance.
fn tiles(html: &mut Html, snapshot: &Snapshot, rates: &Rates) {
    let last = rates.sums().last().unzip();
    let added = snapshot.attachments.iter().filter(|attachment| !attachment.default).count();
    html.markup("<ul class=\"tiles\">");
    tile(html, "Interfaces", &added.to_string(), |_| ());
    tile(html, "Pods receive", &words::rate(last.0), |html| spark(html, rates.sums().map(|(received, _)| received)));
    tile(html, "Pods send", &words::rate(last.1), |html| spark(html, rates.sums().map(|(_, sent)| sent)));
    tile(html, "Discovery relayed", &words::frames(rates.frames()), |_| ());
    tile(html, "Services found", &snapshot.services.len().to_string(), |_| ());
    html.markup("</ul>");
}

fn tile(html: &mut Html, what: &'static str, figure: &str, below: impl FnOnce(&mut Html)) {
    html.markup("<li>");
    html.leaf("span", what).leaf("strong", figure);
    below(html);
    html.markup("</li>");
}

/// The last minutes as a line, tall as its highest point.
fn spark(html: &mut Html, values: impl ExactSizeIterator<Item = f64>) {
    let values: Vec<f64> = values.collect();
    let highest = values.iter().copied().fold(1.0, f64::max);
    let points: Vec<String> =
        values.iter().enumerate().map(|(x, value)| format!("{x},{:.1}", 19.0 - value / highest * 18.0)).collect();
    let (view, points) = (format!("0 0 {} 20", values.len().max(2) - 1), points.join(" "));
    let attributes: super::html::Attributes<'_> =
        &[("viewBox", &view), ("preserveAspectRatio", &"none"), ("aria-hidden", &"true")];
    html.element("svg", attributes, |html| {
        html.element("polyline", &[("points", &points)], |_| ());
    });
}

fn status(html: &mut Html, snapshot: &Snapshot) {
    html.markup("<section id=\"status\"><h2>Status</h2><dl>");
    for Line { name, health: how, text } in &snapshot.status.subsystems {
        html.element("div", &[("class", &health(*how))], |html| {
            html.leaf("dt", name).markup("<dd>");
            if *how != Health::Ok {
                html.leaf("b", if *how == Health::Warning { "Warning: " } else { "Failed: " });
            }
            html.sentence(text).markup("</dd>");
        });
    }
    html.markup("</dl>");
    if snapshot.refusals.is_empty() {
        html.markup("<p>Nothing was refused and nothing has failed since the agent began.</p>");
    }
    html.markup("</section>");
}

/// What pods were refused, or failed to get; without a section while there is nothing.
fn refusals(html: &mut Html, refusals: &[RefusalView]) {
    if refusals.is_empty() {
        return;
    }
    html.markup(concat!(
        "<section id=\"refusals\"><h2>Recent failures</h2><table><thead><tr><th scope=\"col\">Pod</th>",
        "<th scope=\"col\">What happened, and what helps</th><th scope=\"col\">When</th></tr></thead><tbody>",
    ));
    for refusal in refusals.iter().take(MOST_REFUSALS) {
        html.markup("<tr><th scope=\"row\">").name(if refusal.pod.is_empty() { "–" } else { &refusal.pod });
        small(html, &refusal.namespace);
        html.markup("</th><td>").sentence(&refusal.message);
        if let Some(remedy) = &refusal.remedy {
            html.markup("<small>").sentence(remedy).markup("</small>");
        }
        html.markup("</td><td>");
        html.element("time", &[("datetime", &refusal.time)], |html| {
            html.text(hour(&refusal.time));
        });
        html.markup("<small>").text(format_args!("{}, code {}", refusal.verb, refusal.code));
        if refusal.times > 1 {
            html.text(format_args!(", {}", many(refusal.times, "time")));
        }
        html.markup("</small></td></tr>");
    }
    html.markup("</tbody></table>");
    more(html, refusals.len(), MOST_REFUSALS, "multus-agent get refusals");
    html.markup("</section>");
}

/// Date and time of a time in RFC 3339, to the second.
fn hour(time: &str) -> String {
    time.split(['.', 'Z']).next().unwrap_or_default().replace('T', " ")
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Warning => "warning",
        Health::Failed => "failed",
    }
}

fn attachments(html: &mut Html, attachments: &[AttachmentView], rates: &Rates) {
    html.markup("<section id=\"attachments\"><h2>Interfaces of pods</h2>");
    if attachments.is_empty() {
        html.markup(concat!(
            "<p>No pod on this node has an interface beyond its <code>eth0</code>. A pod gets one with the annotation ",
            "<code>k8s.v1.cni.cncf.io/networks</code>.</p></section>",
        ));
        return;
    }
    html.markup(concat!(
        "<table><thead><tr><th scope=\"col\">Pod</th><th scope=\"col\">Interface</th><th scope=\"col\">Addresses</th>",
        "<th scope=\"col\">Parent</th><th scope=\"col\">Receives</th><th scope=\"col\">Sends</th></tr></thead><tbody>",
    ));
    for attachment in attachments.iter().take(MOST_ATTACHMENTS) {
        self::attachment(html, attachment, rates);
    }
    html.markup("</tbody></table>");
    more(html, attachments.len(), MOST_ATTACHMENTS, "multus-agent get attachments");
    html.markup("</section>");
}

fn attachment(html: &mut Html, attachment: &AttachmentView, rates: &Rates) {
    html.markup(if needs_a_look(attachment) { "<tr class=\"warning\">" } else { "<tr>" });
    html.markup("<th scope=\"row\">").name(if attachment.pod.is_empty() { "–" } else { &attachment.pod });
    small(html, &attachment.namespace);
    html.markup("</th><td>").name(&attachment.interface);
    small(html, &attachment.network);
    html.markup("</td><td>").name(if attachment.ips.is_empty() { "–" } else { "" });
    for (at, ip) in attachment.ips.iter().take(4).enumerate() {
        html.markup(if at > 0 { "<br>" } else { "" }).name(ip);
    }
    small(html, attachment.mac.as_deref().unwrap_or_default());
    html.markup("</td><td>").name(attachment.parent.as_deref().or(attachment.kind.as_deref()).unwrap_or("–"));
    match (&attachment.relay[..], &attachment.parent) {
        ([], Some(_)) => small(html, "nothing relayed"),
        (protocols, _) => small(html, &protocols.join(" ")),
    }
    let state = match attachment.state {
        State::Added => None,
        State::Adding => Some("being attached"),
        State::Undo => Some("to be undone"),
    };
    for text in state.into_iter().chain(attachment.note.as_deref()) {
        html.markup("<small><b>").sentence(text).markup("</b></small>");
    }
    html.markup("</td>");
    for (sent, traffic) in [(false, &attachment.receive), (true, &attachment.transmit)] {
        html.markup("<td>");
        match traffic {
            Some(traffic) => {
                html.text(words::rate(rates.of(&bytes(attachment, sent))));
                small(html, &words::size(traffic.bytes));
            }
            None => {
                html.markup("<small>not counted</small>");
            }
        }
        html.markup("</td>");
    }
    html.markup("</tr>");
}

fn small(html: &mut Html, text: &str) {
    if !text.is_empty() {
        html.element("small", &[], |html| {
            html.name(text);
        });
    }
}

fn relay(html: &mut Html, parents: &[Parent], rates: &Rates) {
    html.markup("<section id=\"relay\"><h2>Who hears whom</h2>");
    if parents.is_empty() {
        html.markup(concat!(
            "<p>No pod has a macvlan interface here, and nothing is reflected between links, so there is nothing to ",
            "relay.</p></section>",
        ));
        return;
    }
    html.markup(concat!(
        "<p>Each line is a discovery protocol that is relayed between this node and a pod, in both directions. What pods ",
        "and the LAN say to each other goes the kernel&#39;s own way.</p>",
    ));
    for (number, parent) in parents.iter().take(MOST_PARENTS).enumerate() {
        html.markup("<article>");
        html.element("h3", &[], |html| {
            html.name(&parent.name);
        });
        if !parent.members.is_empty() {
            html.markup("<figure>");
            graph::draw(html, parent, number);
            html.markup("</figure>");
        }
        frames(html, parent, rates);
        html.markup("</article>");
    }
    more(html, parents.len(), MOST_PARENTS, "multus-agent get relay");
    html.markup("</section>");
}

fn frames(html: &mut Html, parent: &Parent, rates: &Rates) {
    if let Some(guard) = parent.guard {
        let dropped = parent.guarded;
        html.element("p", &[], |html| {
            html.text(format_args!("Storm guard by {guard}: {} dropped.", many(dropped, "frame")));
        });
    }
    if parent.frames.is_empty() {
        html.markup("<p>Nobody has said anything yet.</p>");
        return;
    }
    html.markup(concat!(
        "<table><thead><tr><th scope=\"col\">Protocol</th><th scope=\"col\">Way</th><th scope=\"col\">Relayed</th>",
        "<th scope=\"col\">Not relayed</th></tr></thead><tbody>",
    ));
    for Frames { protocol, path, relayed, held } in &parent.frames {
        html.markup("<tr><th scope=\"row\">");
        html.element("i", &[("class", &graph::colour(protocol))], |_| ()).name(protocol).markup("</th><td>");
        html.text(words::path(path)).markup("</td><td>").text(relayed);
        let counter = Counter::Frames(parent.name.clone(), protocol.clone(), path);
        small(html, &words::frames(rates.of(&counter)));
        html.markup("</td><td>");
        if held.is_empty() {
            html.markup("–");
        }
        for (reason, frames) in held {
            html.text(frames);
            small(html, reason);
        }
        html.markup("</td></tr>");
    }
    html.markup("</tbody></table>");
}

fn services(html: &mut Html, services: &[ServiceView]) {
    html.markup("<section id=\"services\"><h2>Services found</h2>");
    if services.is_empty() {
        html.markup(concat!(
            "<p>Nothing has been announced. Services are listed while a pod has mDNS relayed on their link; most devices ",
            "repeat themselves within the hour.</p></section>",
        ));
        return;
    }
    html.markup(concat!(
        "<table><thead><tr><th scope=\"col\">Service</th><th scope=\"col\">Type</th><th scope=\"col\">Where</th>",
        "<th scope=\"col\">Link</th><th scope=\"col\">Holds for</th></tr></thead><tbody>",
    ));
    for service in services.iter().take(MOST_SERVICES) {
        html.markup("<tr><th scope=\"row\">").name(&service.instance).markup("</th><td>");
        let what = words::service(&service.kind);
        html.text(what);
        small(html, &service.kind);
        html.markup("</td><td>").name(service.host.as_deref().unwrap_or("–"));
        let port = service.port.map(|port| format!(":{port}")).unwrap_or_default();
        for address in service.addresses.iter().take(3) {
            let shown = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            small(html, &(shown + &port));
        }
        html.markup("</td><td>").name(&service.parent).markup("</td><td>").text(words::left(service.expires_in));
        html.markup("</td></tr>");
    }
    html.markup("</tbody></table>");
    more(html, services.len(), MOST_SERVICES, "multus-agent get services");
    html.markup("</section>");
}

fn networks(html: &mut Html, networks: &[NetworkView]) {
    html.markup("<section id=\"networks\"><h2>Networks</h2>");
    if networks.is_empty() {
        html.markup("<p>There is no NetworkAttachmentDefinition.</p></section>");
        return;
    }
    html.markup(concat!(
        "<table><thead><tr><th scope=\"col\">Network</th><th scope=\"col\">Plugins</th>",
        "<th scope=\"col\">Interfaces here</th></tr></thead><tbody>",
    ));
    for network in networks.iter().take(MOST_NETWORKS) {
        html.markup(if network.problem.is_some() { "<tr class=\"warning\">" } else { "<tr>" });
        html.markup("<th scope=\"row\">").name(&network.name);
        small(html, &network.namespace);
        html.markup("</th><td>").name(&network.plugins.join(", "));
        if let Some(problem) = &network.problem {
            html.markup("<small><b>").sentence(problem).markup("</b></small>");
        }
        html.markup("</td><td>").text(network.attachments).markup("</td></tr>");
    }
    html.markup("</tbody></table>");
    more(html, networks.len(), MOST_NETWORKS, "multus-agent get networks");
    html.markup("</section>");
}

fn more(html: &mut Html, all: usize, shown: usize, command: &'static str) {
    if all > shown {
        let rest = all - shown;
        html.markup("<p>and ").text(rest).markup(" more: <code>").markup(command).markup("</code></p>");
    }
}

fn foot(html: &mut Html, snapshot: &Snapshot) {
    html.markup("<footer><p>multus-ebpf ").text(snapshot.status.version).markup(" · as of ");
    html.element("time", &[("datetime", &snapshot.time)], |html| {
        html.text(hour(&snapshot.time)).markup(" UTC");
    });
    html.markup("<span id=\"live\"></span></p></footer>");
}

#[cfg(test)]
mod tests;
