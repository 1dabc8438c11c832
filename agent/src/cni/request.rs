//! What a CNI invocation asks: the verb, the container, the interface and the arguments, from the `CNI_*` environment.
//!
//! Only `CNI_*` variables are ever looked at. Nothing here reads the process's own environment.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{CniError, code, quote};
use crate::names::{BadName, ContainerId, IfName, NetnsPath, ObjectName, PodRef};

/// The longest value of one variable, in bytes.
pub const MOST_BYTES: usize = 64 << 10;

/// A CNI verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the specification's own words")]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// Code 4 naming the value.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => {
                return Err(CniError::new(
                    code::INVALID_ENVIRONMENT,
                    format!("CNI_COMMAND {} is not a verb", quote(text)),
                )
                .remedy("use ADD, DEL, CHECK, GC, STATUS or VERSION"));
            }
        })
    }

    /// The verb as the specification writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Which variables must be there (CNI SPEC 1.1, section 2): `CNI_PATH` is required for GC alone.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }

    /// DEL works with what it can make out, and GC and STATUS are about no container; the others refuse what they
    /// cannot read.
    const fn is_strict(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }

    /// Is it about a container?
    const fn names_container(self) -> bool {
        matches!(self, Self::Add | Self::Check | Self::Del)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The `CNI_*` variables of an invocation, others dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of `key`; an empty one is absence, as the Go skeleton sees it.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets `key`; anything but `CNI_*` is dropped.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        if key.starts_with("CNI_") {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    /// Every variable, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl<K: AsRef<str>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let mut environment = Self::default();
        for (key, value) in variables {
            environment.set(key.as_ref(), value);
        }
        environment
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, String>::deserialize(input)?.into_iter().collect())
    }
}

/// `CNI_ARGS`: the text as it came, and its pairs. A value may contain `=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    raw: String,
    pairs: Vec<(String, String)>,
}

impl Args {
    /// Reads `K=V;K=V`; empty parts are skipped.
    ///
    /// # Errors
    /// Code 4 naming the part that has no `=`.
    pub fn parse(raw: &str) -> Result<Self, CniError> {
        let mut args = Self { raw: raw.to_owned(), pairs: Vec::new() };
        for part in raw.split(';').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_ARGS has {}, which is no pair", quote(part)))
                    .remedy("write CNI_ARGS as KEY=VALUE;KEY=VALUE")
            })?;
            args.pairs.push((key.to_owned(), value.to_owned()));
        }
        Ok(args)
    }

    /// [`parse`](Self::parse), parts that are no pair left out: for DEL.
    pub fn parse_what_fits(raw: &str) -> Self {
        let pairs = raw.split(';').filter_map(|part| part.split_once('='));
        Self { raw: raw.to_owned(), pairs: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    /// The text as it came.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The value of `key`; empty is absence.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key && !value.is_empty()).then_some(value))
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// A validated invocation. What a verb requires is there; GC, STATUS and VERSION name no container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The verb.
    pub command: Command,
    /// The sandbox; there for ADD, DEL and CHECK.
    pub container_id: Option<ContainerId>,
    /// Its network namespace; there for ADD and CHECK.
    pub netns: Option<NetnsPath>,
    /// The interface asked for; there for ADD, DEL and CHECK.
    pub ifname: Option<IfName>,
    /// `CNI_ARGS`.
    pub args: Args,
    /// The pod that `CNI_ARGS` names.
    pub pod: Option<PodRef>,
    /// `CNI_PATH`: folders that plugins are searched in, in order; absolute ones only.
    pub path: Vec<String>,
}

impl Request {
    /// Validates the environment of an invocation.
    ///
    /// # Errors
    /// Code 4: all missing names in one sentence, or the variable and its value.
    pub fn parse(environment: &Environment) -> Result<Self, CniError> {
        let command = environment.get("CNI_COMMAND").ok_or_else(|| missing(&["CNI_COMMAND"]))?;
        let command = Command::parse(command)?;
        check_sizes(environment)?;
        let absent: Vec<&str> =
            command.required().iter().copied().filter(|key| environment.get(key).is_none()).collect();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let args = match environment.get("CNI_ARGS") {
            Some(raw) if command.is_strict() => Args::parse(raw)?,
            Some(raw) => Args::parse_what_fits(raw),
            None => Args::default(),
        };
        let netns = match environment.get("CNI_NETNS").map(NetnsPath::new) {
            Some(Err(bad)) if command.is_strict() => return Err(invalid("CNI_NETNS", &bad)),
            given => given.and_then(Result::ok),
        };
        let pod = match pod_of(&args) {
            Err(error) if command.is_strict() => return Err(error),
            given => given.ok().flatten(),
        };
        let container = validated(environment, "CNI_CONTAINERID", ContainerId::new);
        let interface = validated(environment, "CNI_IFNAME", IfName::new);
        let (container_id, ifname) = if command.names_container() {
            (container?, interface?)
        } else {
            (container.unwrap_or_default(), interface.unwrap_or_default())
        };
        Ok(Self {
            command,
            container_id,
            netns,
            ifname,
            args,
            pod,
            path: environment.get("CNI_PATH").map(folders).unwrap_or_default(),
        })
    }

    /// The container of a verb that has one.
    ///
    /// # Errors
    /// Code 4 for a verb that names none.
    pub fn container(&self) -> Result<&ContainerId, CniError> {
        self.container_id.as_ref().ok_or_else(|| missing(&["CNI_CONTAINERID"]))
    }

    /// The interface of a verb that has one.
    ///
    /// # Errors
    /// Code 4 for a verb that names none.
    pub fn interface(&self) -> Result<&IfName, CniError> {
        self.ifname.as_ref().ok_or_else(|| missing(&["CNI_IFNAME"]))
    }
}

/// Which pod `CNI_ARGS` names, if any.
///
/// # Errors
/// Code 4 for a name that cannot be a pod's.
pub fn pod_of(args: &Args) -> Result<Option<PodRef>, CniError> {
    let (Some(namespace), Some(name)) = (args.get("K8S_POD_NAMESPACE"), args.get("K8S_POD_NAME")) else {
        return Ok(None);
    };
    let object = |key, value| {
        ObjectName::new(value).map_err(|bad: BadName| invalid("CNI_ARGS", &bad).within(format_args!("{key}")))
    };
    let uid = args.get("K8S_POD_UID");
    if let Some(uid) = uid.filter(|uid| !is_uid(uid)) {
        return Err(CniError::new(code::INVALID_ENVIRONMENT, format!("K8S_POD_UID {} is not a UID", quote(uid)))
            .remedy("use letters, digits and '-', at most 128"));
    }
    Ok(Some(PodRef {
        namespace: object("K8S_POD_NAMESPACE", namespace)?,
        name: object("K8S_POD_NAME", name)?,
        uid: uid.map(str::to_owned),
    }))
}

fn is_uid(text: &str) -> bool {
    text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn folders(path: &str) -> Vec<String> {
    path.split(':').filter(|folder| folder.starts_with('/')).map(str::to_owned).collect()
}

fn validated<T>(
    environment: &Environment,
    key: &str,
    new: impl Fn(String) -> Result<T, BadName>,
) -> Result<Option<T>, CniError> {
    environment.get(key).map(|value| new(value.to_owned()).map_err(|bad| invalid(key, &bad))).transpose()
}

fn check_sizes(environment: &Environment) -> Result<(), CniError> {
    match environment.iter().find(|(_, value)| value.len() > MOST_BYTES) {
        Some((key, value)) => Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("{} has {} bytes, at most {MOST_BYTES} are read", quote(key), value.len()),
        )),
        None => Ok(()),
    }
}

fn missing(names: &[&str]) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("required env variables [{}] missing", names.join(",")))
        .remedy("a container runtime sets them (CNI SPEC 1.1, section 2)")
}

fn invalid(key: &str, bad: &BadName) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("{key}: {bad}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(&str, &str); 6] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin:relative:/usr/lib/cni"),
        ("CNI_ARGS", "IgnoreUnknown=true;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_UID=u-1;X=a=b"),
        ("PATH", "/bin"),
    ];

    fn environment(command: &str, change: &[(&str, &str)]) -> Environment {
        FULL.iter().copied().chain([("CNI_COMMAND", command)]).chain(change.iter().copied()).collect()
    }

    #[test]
    fn a_whole_request() {
        let environment = environment("ADD", &[]);
        assert_eq!(environment.get("PATH"), None, "only CNI_* is kept");
        let request = Request::parse(&environment).unwrap();
        assert_eq!(request.command, Command::Add);
        assert_eq!(request.container().unwrap().as_str(), "c1");
        assert_eq!(request.interface().unwrap().as_str(), "eth0");
        assert_eq!(request.path, ["/opt/cni/bin", "/usr/lib/cni"]);
        assert_eq!(request.args.get("X"), Some("a=b"));
        assert_eq!(request.args.raw(), FULL[4].1);
        let pod = request.pod.unwrap();
        assert_eq!((pod.to_string().as_str(), pod.uid.as_deref()), ("ns/pod", Some("u-1")));
    }

    #[test]
    fn missing_names_come_in_one_error() {
        let table = [
            ("ADD", "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"),
            ("CHECK", "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"),
            ("DEL", "[CNI_CONTAINERID,CNI_IFNAME]"),
            ("GC", "[CNI_PATH]"),
        ];
        for (command, names) in table {
            let error = Request::parse(&[("CNI_COMMAND", command)].into_iter().collect()).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT);
            assert!(error.msg.contains(names), "{command}: {error}");
        }
        assert!(Request::parse(&Environment::default()).unwrap_err().msg.contains("[CNI_COMMAND]"));
        assert!(Request::parse(&[("CNI_COMMAND", "VERSION")].into_iter().collect()).is_ok());
    }

    #[test]
    fn refusals_name_the_variable() {
        let long = "a".repeat(MOST_BYTES + 1);
        let table = [
            ("CNI_COMMAND", "add", "CNI_COMMAND"),
            ("CNI_CONTAINERID", "../x", "CNI_CONTAINERID"),
            ("CNI_IFNAME", "a/b", "CNI_IFNAME"),
            ("CNI_NETNS", "relative", "CNI_NETNS"),
            ("CNI_ARGS", "K8S_POD_NAME", "CNI_ARGS"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=../x;K8S_POD_NAME=a", "K8S_POD_NAMESPACE"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=x;K8S_POD_NAME=A_b", "K8S_POD_NAME"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_UID=a/b", "K8S_POD_UID"),
            ("CNI_ARGS", &long, "CNI_ARGS"),
        ];
        for (key, value, names) in table {
            let error = Request::parse(&environment("ADD", &[(key, value)])).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{key}");
            assert!(error.msg.contains(names) && error.msg.len() < 300, "{key}: {error}");
        }
    }

    #[test]
    fn del_makes_do() {
        let change = [("CNI_NETNS", ""), ("CNI_ARGS", "junk;K8S_POD_NAMESPACE=../x;K8S_POD_NAME=a")];
        let request = Request::parse(&environment("DEL", &change)).unwrap();
        assert_eq!((request.netns, request.pod), (None, None));
        let request = Request::parse(&environment("DEL", &[("CNI_NETNS", "bad")])).unwrap();
        assert_eq!(request.netns, None);
        assert!(Request::parse(&environment("DEL", &[("CNI_CONTAINERID", "/")])).is_err());
    }

    #[test]
    fn an_environment_drops_what_is_not_cni_when_read() {
        let environment: Environment = serde_json::from_str(r#"{"CNI_ARGS":"a=b","LD_PRELOAD":"x"}"#).unwrap();
        assert_eq!(serde_json::to_string(&environment).unwrap(), r#"{"CNI_ARGS":"a=b"}"#);
    }
}
