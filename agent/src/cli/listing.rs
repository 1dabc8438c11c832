//! What can be listed: for each kind where it is asked for, its columns, and the name of one of it.
//!
//! Data that `get` prints and `describe` searches; nothing here asks or prints.

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::output::cell;

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Interfaces of pods, with their counters.
    #[value(alias = "attachment")]
    Attachments,
    /// NetworkAttachmentDefinitions.
    #[value(alias = "network")]
    Networks,
    /// Discovery frames relayed and not relayed, per parent.
    Relay,
    /// Services that are announced on parents.
    #[value(alias = "service")]
    Services,
    /// The links that attachments are on.
    #[value(alias = "parent")]
    Parents,
    /// Plugins that were called: how often, how long, and how they failed.
    #[value(alias = "delegate")]
    Delegates,
    /// eBPF programs of ours in the kernel, beside what the records say.
    #[value(alias = "program")]
    Programs,
    /// The last requests that were refused or failed.
    #[value(alias = "refusal")]
    Refusals,
}

/// One kind.
#[derive(Debug)]
pub struct Listing {
    /// Where the agent tells it.
    pub path: &'static str,
    /// What a table shows.
    pub columns: &'static [Column],
    /// The name of an item: the same as long as the item is the same.
    pub name: fn(&Value) -> String,
}

/// One column of a table.
#[derive(Debug)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Where its value is in an item.
    pub pointer: &'static str,
    /// Whether it is shown with `-o wide` alone.
    pub wide: bool,
}

impl Column {
    /// The text of an item in this column.
    pub fn cell(&self, item: &Value) -> String {
        cell(item, self.pointer)
    }
}

const fn always(head: &'static str, pointer: &'static str) -> Column {
    Column { head, pointer, wide: false }
}

const fn wide(head: &'static str, pointer: &'static str) -> Column {
    Column { head, pointer, wide: true }
}

impl What {
    /// The kind's row.
    pub fn listing(self) -> &'static Listing {
        match self {
            Self::Attachments => &ATTACHMENTS,
            Self::Networks => &NETWORKS,
            Self::Relay => &RELAY,
            Self::Services => &SERVICES,
            Self::Parents => &PARENTS,
            Self::Delegates => &DELEGATES,
            Self::Programs => &PROGRAMS,
            Self::Refusals => &REFUSALS,
        }
    }
}

const ATTACHMENTS: Listing = Listing {
    path: "/v1/attachments",
    columns: &[
        always("NAMESPACE", "/namespace"),
        always("POD", "/pod"),
        always("INTERFACE", "/interface"),
        always("NETWORK", "/network"),
        always("IPS", "/ips"),
        always("MAC", "/mac"),
        always("PARENT", "/parent"),
        always("STATE", "/state"),
        always("RECEIVED", "/receive/packets"),
        always("SENT", "/transmit/packets"),
        wide("RECEIVED-BYTES", "/receive/bytes"),
        wide("SENT-BYTES", "/transmit/bytes"),
        wide("RELAY", "/relay"),
        wide("HOST", "/hostAccess"),
        wide("SLOT", "/slot"),
        wide("KIND", "/kind"),
        wide("ORIGIN", "/origin"),
        wide("CONTAINER", "/container"),
        always("NOTE", "/note"),
    ],
    name: attachment,
};

const NETWORKS: Listing = Listing {
    path: "/v1/networks",
    columns: &[
        always("NAMESPACE", "/namespace"),
        always("NAME", "/name"),
        always("PLUGINS", "/plugins"),
        always("CNIVERSION", "/cniVersion"),
        always("ATTACHMENTS", "/attachments"),
        always("PROBLEM", "/problem"),
    ],
    name: |item| joined(item, &["/namespace", "/name"]),
};

const RELAY: Listing = Listing { path: "/v1/relay", columns: &[], name: |item| cell(item, "/parent") };

const SERVICES: Listing = Listing {
    path: "/v1/services",
    columns: &[
        always("PARENT", "/parent"),
        always("TYPE", "/type"),
        always("INSTANCE", "/instance"),
        always("HOST", "/host"),
        always("ADDRESSES", "/addresses"),
        always("PORT", "/port"),
        always("SOURCES", "/sources"),
        always("EXPIRES", "/expiresIn"),
    ],
    name: |item| format!("{}/{}.{}", cell(item, "/parent"), cell(item, "/instance"), cell(item, "/type")),
};

const PARENTS: Listing = Listing {
    path: "/v1/parents",
    columns: &[
        always("NAME", "/name"),
        always("IFINDEX", "/ifindex"),
        always("MAC", "/mac"),
        always("ATTACHED-BY", "/attachedBy"),
        always("GUARD", "/guard"),
        always("PROTOCOLS", "/protocols"),
        always("SERVICES", "/services"),
        wide("BEYOND-FANOUT", "/beyondFanout"),
        wide("ATTACHMENTS", "/attachments"),
        always("PROBLEM", "/problem"),
    ],
    name: |item| cell(item, "/name"),
};

const DELEGATES: Listing = Listing {
    path: "/v1/delegates",
    columns: &[
        always("TYPE", "/type"),
        always("VERB", "/verb"),
        always("RUNNER", "/runner"),
        always("CALLS", "/calls"),
        always("FAILURES", "/failures"),
        always("P50-MS", "/p50Ms"),
        always("P99-MS", "/p99Ms"),
        wide("LAST", "/last"),
        wide("FAILED", "/lastError/time"),
        always("LAST-ERROR", "/lastError/message"),
    ],
    name: |item| joined(item, &["/type", "/verb", "/runner"]),
};

const PROGRAMS: Listing = Listing {
    path: "/v1/programs",
    columns: &[
        always("PROGRAM", "/program"),
        always("ID", "/id"),
        always("ON", "/on"),
        always("INTERFACE", "/interface"),
        always("ATTACHED-BY", "/attachedBy"),
        wide("RECORDED", "/recorded"),
        wide("VERIFIED", "/verifiedInstructions"),
        always("PROBLEM", "/problem"),
    ],
    name: program,
};

const REFUSALS: Listing = Listing {
    path: "/v1/refusals",
    columns: &[
        always("NUMBER", "/number"),
        always("TIME", "/time"),
        always("TIMES", "/times"),
        always("NAMESPACE", "/namespace"),
        always("POD", "/pod"),
        always("VERB", "/verb"),
        always("CODE", "/code"),
        wide("OBJECT", "/object"),
        wide("FIELD", "/field"),
        wide("CONTAINER", "/container"),
        always("MESSAGE", "/message"),
        wide("REMEDY", "/remedy"),
    ],
    name: |item| cell(item, "/number"),
};

/// `ON/INTERFACE/PROGRAM`; what is on no interface has its id.
fn program(item: &Value) -> String {
    if cell(item, "/interface").is_empty() {
        return joined(item, &["/program", "/id"]);
    }
    joined(item, &["/on", "/interface", "/program"])
}

/// The items of a list.
pub fn items(document: &Value) -> &[Value] {
    document.pointer("/items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn joined(item: &Value, pointers: &[&str]) -> String {
    pointers.iter().map(|pointer| cell(item, pointer)).collect::<Vec<_>>().join("/")
}

/// `NAMESPACE/POD/INTERFACE`; where no pod is known, `CONTAINER/INTERFACE`.
fn attachment(item: &Value) -> String {
    if cell(item, "/pod").is_empty() {
        return joined(item, &["/container", "/interface"]);
    }
    joined(item, &["/namespace", "/pod", "/interface"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for what in What::value_variants() {
            assert!(what.listing().path.starts_with("/v1/"));
        }
    }

    #[test]
    fn names_say_which() {
        let pod = serde_json::json!({"namespace": "a", "pod": "b", "interface": "net1", "container": "c"});
        assert_eq!((ATTACHMENTS.name)(&pod), "a/b/net1");
        let stray = serde_json::json!({"namespace": "", "pod": "", "interface": "net1", "container": "c"});
        assert_eq!((ATTACHMENTS.name)(&stray), "c/net1");
    }
}
