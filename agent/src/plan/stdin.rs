//! What exactly one plugin of an attachment is told: its stdin and its environment, for every verb.
//!
//! Follows libcni: `name`, `cniVersion`, `prevResult` and `runtimeConfig` are set, every other byte is the author's.
//! Nothing here runs a plugin.

use serde_json::json;
use serde_json::value::RawValue;

use super::attachment::Attachment;
use crate::cni::{CniResult, Command, Environment, NetworkConfig, RawObject, Request};
use crate::fault::{CniError, code};
use crate::names::{ContainerId, IfName};

/// Pairs of the runtime that are about its own interface and never reach another one.
const MASTERS_OWN: [&str; 3] = ["IP", "MAC", "GATEWAY"];

/// The stdin of plugin `index` of `attachment`. `previous` is, for ADD, the result of the plugin before (none for the
/// first); for DEL and CHECK the attachment's final result, which plugins see from 0.4.0 on.
///
/// # Errors
/// Code 1 when the attachment's version cannot say `previous`.
pub fn stdin(
    command: Command,
    attachment: &Attachment,
    index: usize,
    previous: Option<&CniResult>,
) -> Result<String, CniError> {
    let mut object = base(&attachment.config, index)?;
    let version = attachment.config.cni_version;
    let sees_previous = match command {
        Command::Add => index > 0,
        Command::Del | Command::Check => version.has_check(),
        _ => false,
    };
    if let Some(previous) = previous.filter(|_| sees_previous) {
        let text = previous.print_compact(version)?;
        let raw = RawValue::from_string(text)
            .map_err(|error| CniError::new(code::INTERNAL, format!("print prevResult: {error}")))?;
        object.set("prevResult", raw);
    }
    if !matches!(command, Command::Gc | Command::Status) {
        inject_runtime_config(&mut object, attachment, index);
    }
    Ok(object.print())
}

/// The stdin of plugin `index` of a network for GC: the attachments of this network that are to stay.
///
/// # Errors
/// Code 999 when there is no such plugin.
pub fn gc_stdin(config: &NetworkConfig, index: usize, valid: &[(ContainerId, IfName)]) -> Result<String, CniError> {
    let mut object = base(config, index)?;
    let valid: Vec<_> =
        valid.iter().map(|(container, ifname)| json!({"containerID": container, "ifname": ifname})).collect();
    object.set_json("cni.dev/valid-attachments", &valid);
    // libcni writes this older spelling as well, and plugins read it.
    object.set_json("cni.dev/attachments", &valid);
    Ok(object.print())
}

/// The environment of the plugins of `attachment` for `command`, which differs from the request's when an ADD is undone.
///
/// # Errors
/// Code 4 when the request names no container.
pub fn environment(
    command: Command,
    request: &Request,
    bin_dir: &str,
    attachment: &Attachment,
) -> Result<Environment, CniError> {
    let container = request.container()?;
    let netns = request.netns.clone().map(String::from).unwrap_or_default();
    let mut path = vec![bin_dir.to_owned()];
    path.extend(request.path.iter().filter(|folder| *folder != bin_dir).cloned());
    let args = args(request, container, attachment);
    Ok([
        ("CNI_COMMAND", command.as_str().to_owned()),
        ("CNI_CONTAINERID", container.to_string()),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", attachment.ifname.to_string()),
        ("CNI_ARGS", args),
        ("CNI_PATH", path.join(":")),
    ]
    .into_iter()
    .collect())
}

/// The stdin of plugin `index` of a network for STATUS, which is about no container.
///
/// # Errors
/// Code 999 when there is no such plugin.
pub fn about_the_network(config: &NetworkConfig, index: usize) -> Result<String, CniError> {
    base(config, index).map(|object| object.print())
}

fn base(config: &NetworkConfig, index: usize) -> Result<RawObject, CniError> {
    let plugin = config
        .plugins
        .get(index)
        .ok_or_else(|| CniError::new(code::INTERNAL, format!("network {} has no plugin {index}", config.name)))?;
    let mut object = plugin.raw.clone();
    object.set_json("name", &config.name);
    object.set_json("cniVersion", &config.cni_version);
    Ok(object)
}

fn inject_runtime_config(object: &mut RawObject, attachment: &Attachment, index: usize) {
    let Some(plugin) = attachment.config.plugins.get(index) else { return };
    let mut declared = RawObject::default();
    for (capability, value) in attachment.runtime_config.iter() {
        if plugin.capabilities.contains(capability) {
            declared.set(capability, value.to_owned());
        }
    }
    if !declared.is_empty() {
        object.set_json("runtimeConfig", &declared);
    }
}

/// `IgnoreUnknown`, the pod's four pairs, the runtime's further pairs, then the attachment's own, which go last
/// because plugins let the last of equal keys win.
fn args(request: &Request, container: &ContainerId, attachment: &Attachment) -> String {
    let mut pairs: Vec<(&str, &str)> = vec![("IgnoreUnknown", "true")];
    if let Some(pod) = &request.pod {
        pairs.push(("K8S_POD_NAMESPACE", pod.namespace.as_str()));
        pairs.push(("K8S_POD_NAME", pod.name.as_str()));
        let infra = request.args.get("K8S_POD_INFRA_CONTAINER_ID").unwrap_or(container.as_str());
        pairs.push(("K8S_POD_INFRA_CONTAINER_ID", infra));
        if let Some(uid) = &pod.uid {
            pairs.push(("K8S_POD_UID", uid));
        }
    }
    let own: Vec<&str> = attachment.extra_args.iter().map(|(key, _)| key.as_str()).collect();
    for (key, value) in request.args.iter() {
        let is_there = pairs.iter().any(|(name, _)| *name == key) || own.contains(&key);
        // The reference plugins refuse all arguments for the sake of one with two `=`.
        let is_readable = !value.contains('=');
        if !is_there && is_readable && (attachment.master || !MASTERS_OWN.contains(&key)) {
            pairs.push((key, value));
        }
    }
    pairs.extend(attachment.extra_args.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let texts: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    texts.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"cniVersion":"VERSION","name":"n","plugins":[{"type":"a","odd" : [1 , 2.50],"x":{ "y":"<&>" }},{"type":"b","capabilities":{"mac":true,"ips":false}}]}"#;
    const RESULT: &str = r#"{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.5/24"}]}"#;

    fn attachment(version: &str) -> Attachment {
        let config = NetworkConfig::parse(CONFIG.replace("VERSION", version).as_bytes(), None).unwrap();
        Attachment {
            network: "home/n".into(),
            runtime_config: RawObject::parse(br#"{"mac":"m","ips":["i"],"portMappings":[]}"#).unwrap(),
            extra_args: vec![("MAC".into(), "m".into()), ("IP".into(), "a,b".into())],
            ..Attachment::plain(config, IfName::new("net1").unwrap())
        }
    }

    fn request(args: &str) -> Request {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni:/opt/cni/bin"),
            ("CNI_ARGS", args),
        ];
        Request::parse(&variables.into_iter().collect()).unwrap()
    }

    #[test]
    fn stdin_is_the_authors_but_for_four_keys() {
        let result = CniResult::parse(RESULT.as_bytes()).unwrap();
        let plain = r#"{"type":"a","odd":[1 , 2.50],"x":{ "y":"<&>" },"name":"n","cniVersion":"0.3.1"}"#;
        let second = r#"{"type":"b","capabilities":{"mac":true,"ips":false},"name":"n","cniVersion":"0.3.1""#;
        let rc = r#""runtimeConfig":{"mac":"m"}}"#;
        let prev = r#""prevResult":{"cniVersion":"0.3.1","dns":{},"ips":[{"address":"10.0.0.5/24","version":"4"}]}"#;
        let old = attachment("0.3.1");
        let table = [
            (Command::Add, 0, plain.to_owned()),
            (Command::Add, 1, format!("{second},{prev},{rc}")),
            (Command::Del, 0, plain.to_owned()),
            (Command::Del, 1, format!("{second},{rc}")),
            (Command::Status, 1, format!("{second}}}")),
        ];
        for (command, index, wanted) in table {
            assert_eq!(stdin(command, &old, index, Some(&result)).unwrap(), wanted, "{command} {index}");
        }
        let newer = attachment("0.4.0");
        for command in [Command::Del, Command::Check] {
            let text = stdin(command, &newer, 0, Some(&result)).unwrap();
            assert!(text.contains(r#""prevResult":{"cniVersion":"0.4.0""#), "{command}: {text}");
            assert!(!stdin(command, &newer, 0, None).unwrap().contains("prevResult"));
        }
        assert!(stdin(Command::Add, &old, 2, None).is_err());
    }

    #[test]
    fn gc_says_what_stays() {
        let valid = [(ContainerId::new("c1").unwrap(), IfName::new("net1").unwrap())];
        let text = gc_stdin(&attachment("1.1.0").config, 1, &valid).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let wanted = json!([{"containerID": "c1", "ifname": "net1"}]);
        assert_eq!((&value["cni.dev/valid-attachments"], &value["cni.dev/attachments"]), (&wanted, &wanted));
        assert!(value.get("runtimeConfig").is_none());
    }

    #[test]
    fn the_environment_is_built_in_upstreams_order() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=i1;K8S_POD_UID=u1;\
                    X=a;Y=a=b;MAC=runtime;GATEWAY=g";
        let mut secondary = attachment("0.4.0");
        let made = environment(Command::Del, &request(args), "/opt/cni/bin", &secondary).unwrap();
        let pod =
            "IgnoreUnknown=true;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=i1;K8S_POD_UID=u1";
        let wanted = [
            ("CNI_ARGS", format!("{pod};X=a;MAC=m;IP=a,b")),
            ("CNI_COMMAND", "DEL".to_owned()),
            ("CNI_CONTAINERID", "c1".to_owned()),
            ("CNI_IFNAME", "net1".to_owned()),
            ("CNI_NETNS", "/run/netns/x".to_owned()),
            ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni".to_owned()),
        ];
        let got: Vec<_> = made.iter().map(|(key, value)| (key, value.to_owned())).collect();
        assert_eq!(got, wanted);

        secondary.master = true;
        secondary.extra_args.clear();
        let made = environment(Command::Add, &request(args), "/opt/cni/bin", &secondary).unwrap();
        assert_eq!(made.get("CNI_ARGS"), Some(format!("{pod};X=a;MAC=runtime;GATEWAY=g").as_str()));
    }
}
