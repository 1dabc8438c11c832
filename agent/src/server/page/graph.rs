//! Who hears whom? One parent of the relay as a drawing: LAN and node on the left, pods on the right, one line for each
//! protocol that is relayed between.
//!
//! Foreign names get in through [`Html`] alone. Says the same as text for those who do not see it.

use super::html::Html;
use super::snapshot::{Member, Parent};
use crate::fault::many;

/// The most pods that are drawn behind one parent.
pub(super) const MOST_PODS: usize = 16;
/// Protocols with a colour of their own; all others share one.
const COLOURS: [&str; 4] = ["mdns", "ssdp", "wsd", "coap"];

/// Height of a pod's box with the gap below it.
const ROW: usize = 46;
const BOX: usize = 38;
const TOP: usize = 8;
/// Left edge and width of the node's boxes, and of the pods'.
const NODE: (usize, usize) = (8, 150);
const POD: (usize, usize) = (330, 202);
const WIDTH: usize = 540;
/// How many characters fit into a box.
const FITS: usize = 24;

/// Draws `parent`; `number` makes the names of its parts unique in the document.
pub(super) fn draw(html: &mut Html, parent: &Parent, number: usize) {
    let shown = parent.members.len().min(MOST_PODS);
    let more = parent.members.len() - shown;
    let rows = (shown + usize::from(more > 0)).max(3);
    let height = TOP + rows * ROW;
    let view = format!("0 0 {WIDTH} {height}");
    let (title, text) = (format!("g{number}t"), format!("g{number}d"));
    let labels = format!("{title} {text}");
    let attributes: super::html::Attributes<'_> =
        &[("viewBox", &view), ("role", &"img"), ("aria-labelledby", &labels), ("class", &"graph")];
    html.element("svg", attributes, |html| {
        html.element("title", &[("id", &title)], |html| {
            html.markup("Who hears whom on ").name(&parent.name);
        });
        html.element("desc", &[("id", &text)], |html| describe(html, parent));
        let middle = TOP + (rows * ROW - (ROW - BOX)) / 2;
        let node = (NODE.0 + NODE.1, middle + ROW / 2 + 2);
        lan(html, parent, middle);
        for (row, member) in parent.members.iter().take(MOST_PODS).enumerate() {
            let y = TOP + row * ROW;
            lines(html, member, node, (POD.0, y + BOX / 2));
            pod(html, member, y);
        }
        if more > 0 {
            let y = TOP + shown * ROW + 24;
            html.element("text", &[("x", &(POD.0 + 12)), ("y", &y), ("class", &"sub")], |html| {
                html.text(format_args!("and {more} more"));
            });
        }
    });
}

/// The drawing in sentences.
fn describe(html: &mut Html, parent: &Parent) {
    if parent.members.is_empty() {
        html.markup("No pods are behind it.");
    }
    for Member { member, .. } in parent.members.iter().take(MOST_PODS) {
        html.name(&member.namespace).markup("/").name(&member.pod);
        if member.relayed {
            html.markup(" and this node hear each other by ").sentence(&member.protocols.join(", ")).markup(". ");
        } else {
            html.markup(" and this node do not hear each other. ");
        }
    }
}

/// The boxes of LAN and node, and the wire between them.
fn lan(html: &mut Html, parent: &Parent, middle: usize) {
    let x = NODE.0 + NODE.1 / 2;
    let (lan, node) = (middle - ROW / 2 - BOX / 2 + 2, middle + ROW / 2 - BOX / 2 + 2);
    let wire = format!("M{x} {} V{node}", lan + BOX);
    html.element("path", &[("class", &"wire"), ("d", &wire)], |_| ());
    boxed(
        html,
        "lan",
        (NODE, lan),
        |html| {
            html.markup("LAN");
        },
        |html| {
            html.markup("the wire");
        },
    );
    boxed(
        html,
        "node",
        (NODE, node),
        |html| {
            html.markup("This node");
        },
        |html| {
            html.name(&parent.name);
        },
    );
}

fn pod(html: &mut Html, member: &Member, y: usize) {
    let kind = if member.member.relayed { "pod" } else { "pod apart" };
    let name = |html: &mut Html| {
        html.name(&fitting(&member.member.pod));
    };
    boxed(html, kind, (POD, y), name, |html| {
        html.name(&fitting(&format!("{} {}", member.member.namespace, member.member.interface)));
        match member.announces {
            0 => {}
            services => {
                html.text(format_args!(" · {}", many(services, "service")));
            }
        }
    });
}

fn boxed(
    html: &mut Html,
    class: &'static str,
    ((x, width), y): ((usize, usize), usize),
    name: impl FnOnce(&mut Html),
    below: impl FnOnce(&mut Html),
) {
    html.element("g", &[("class", &class)], |html| {
        let attributes: super::html::Attributes<'_> =
            &[("x", &x), ("y", &y), ("width", &width), ("height", &BOX), ("rx", &8)];
        html.element("rect", attributes, |_| ());
        html.element("text", &[("x", &(x + 12)), ("y", &(y + 16))], name);
        html.element("text", &[("x", &(x + 12)), ("y", &(y + 31)), ("class", &"sub")], below);
    });
}

/// One curve for each protocol, side by side.
fn lines(html: &mut Html, member: &Member, (x1, y1): (usize, usize), (x2, y2): (usize, usize)) {
    let bend = x1.midpoint(x2);
    if !member.member.relayed {
        let curve = format!("M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}");
        html.element("path", &[("class", &"none"), ("d", &curve)], |_| ());
        return;
    }
    let protocols = member.member.protocols.iter().take(8);
    let first = protocols.len() * 2;
    for (at, protocol) in protocols.enumerate() {
        let (y1, y2) = (y1 + at * 4 + 2 - first.min(y1), y2 + at * 4 + 2 - first.min(y2));
        let curve = format!("M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}");
        html.element("path", &[("class", &colour(protocol)), ("d", &curve)], |_| ());
    }
}

/// The class that colours a protocol's lines.
pub(super) fn colour(protocol: &str) -> &'static str {
    COLOURS.into_iter().find(|known| *known == protocol).unwrap_or("other")
}

fn fitting(name: &str) -> String {
    let mut text: String = name.chars().take(FITS).collect();
    if name.chars().nth(FITS).is_some() {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::view::MemberView;

    fn member(pod: &str, relayed: bool) -> Member {
        let protocols = ["mdns", "knx"].map(str::to_owned).into();
        let member = MemberView {
            namespace: "default".into(),
            pod: pod.into(),
            interface: "net1".into(),
            mac: String::new(),
            protocols,
            host_access: false,
            host_ports: None,
            relayed,
        };
        Member { member, announces: 2 }
    }

    fn drawn(members: Vec<Member>) -> String {
        let mut html = Html::default();
        let parent = Parent { name: "eth0".into(), members, frames: Vec::new(), guard: None, guarded: 0 };
        draw(&mut html, &parent, 3);
        html.finish()
    }

    #[test]
    fn each_protocol_has_a_line_and_a_sentence() {
        let text = drawn(vec![member("cam", true), member("<script>", false)]);
        assert_eq!(text.matches("class=\"mdns\"").count(), 1);
        assert_eq!(text.matches("class=\"other\"").count(), 1);
        assert_eq!(text.matches("class=\"none\"").count(), 1);
        assert!(text.contains("default/cam and this node hear each other by mdns, knx."), "{text}");
        assert!(text.contains("default/&lt;script&gt; and this node do not hear each other."), "{text}");
        assert!(text.contains("aria-labelledby=\"g3t g3d\"") && text.contains(" · 2 services"), "{text}");
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn many_pods_are_not_all_drawn() {
        let text = drawn((0..40).map(|n| member(&format!("pod-{n}"), true)).collect());
        assert!(text.contains("and 24 more") && !text.contains("pod-16"), "{text}");
        assert!(drawn(Vec::new()).contains("No pods are behind it."));
    }
}
