//! The requests that were refused or failed lately, newest first.

use serde::Serialize;

use super::List;
use super::times::written;
use crate::fault::CniError;
use crate::ops::context::Context;
use crate::ops::refusals::Refusal;

/// One refusal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RefusalView {
    pub number: u64,
    pub time: String,
    pub first: String,
    pub times: u64,
    pub verb: &'static str,
    pub namespace: String,
    pub pod: String,
    pub container: Option<String>,
    pub interface: Option<String>,
    pub code: u32,
    pub message: String,
    pub object: Option<String>,
    pub field: Option<String>,
    pub remedy: Option<String>,
}

/// The last refusals.
pub fn refusals(context: &Context) -> List<RefusalView> {
    List::of("RefusalList", context.refusals.recent().into_iter().map(view).collect())
}

fn view(refusal: Refusal) -> RefusalView {
    let Refusal { number, first, last, times, asked, error } = refusal;
    let (namespace, pod) = asked.pod.unwrap_or_default();
    let (object, field) = (object(&error), field(&error));
    RefusalView {
        number,
        time: written(last),
        first: written(first),
        times,
        verb: asked.verb,
        namespace,
        pod,
        container: asked.container,
        interface: asked.interface,
        code: error.code,
        object,
        field,
        message: error.msg,
        remedy: Some(error.details).filter(|details| !details.is_empty()),
    }
}

/// The words in which sentences name what they are about; the name follows, bare or in quotes. The more exact come first.
const OBJECTS: [&str; 6] = [
    "NetworkAttachmentDefinition ",
    "network-attachment-definition ",
    "annotation ",
    "plugin ",
    "network ",
    "container ",
];

/// What a refusal is about.
fn object(error: &CniError) -> Option<String> {
    let texts = [error.msg.as_str(), error.details.as_str()];
    OBJECTS.iter().find_map(|noun| {
        texts.iter().find_map(|text| {
            let (_, rest) = text.split_once(noun)?;
            let name = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next()?,
                None => rest.split([' ', ',', ':', ';']).next()?,
            };
            // A word of the sentence is no name.
            let is_name = name.contains(['/', '.', '-']) || rest.starts_with('"');
            (is_name && !name.is_empty()).then(|| format!("{noun}{name}"))
        })
    })
}

/// The field that a refusal names.
fn field(error: &CniError) -> Option<String> {
    let (_, rest) = error.msg.split_once("field \"")?;
    rest.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_fields_are_those_of_the_sentence() {
        let table = [
            (
                "annotation k8s.v1.cni.cncf.io/networks: field \"ips\": no",
                "",
                "annotation k8s.v1.cni.cncf.io/networks",
                "ips",
            ),
            ("find plugin \"macvlan\": no such file", "install it", "plugin macvlan", ""),
            (
                "it failed",
                "network-attachment-definition default/lan, interface net1: x",
                "network-attachment-definition default/lan",
                "",
            ),
            ("no turn within 3 s: the node is busy", "try again later", "", ""),
            ("the network of it is none", "", "", ""),
        ];
        for (msg, details, wanted, named) in table {
            let error = CniError::new(7, msg).remedy(details);
            assert_eq!(object(&error).unwrap_or_default(), wanted, "{msg}");
            assert_eq!(field(&error).unwrap_or_default(), named, "{msg}");
        }
    }
}
