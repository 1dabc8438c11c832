//! What a plugin inherits from whoever starts it may be repeated by it, and is nobody's to read. Whoever starts it knows these
//! variables, and nobody behind does: so the values go here.
//!
//! The plugin that the runtime calls is built with this, so it is as small as can be.

use std::net::IpAddr;

use super::{names_a_secret, password_of};
use crate::wire::{MOST_STDERR, Outcome};

/// Variables that every process has, and those of systemd(1).
const EVERYWHERE: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "OLDPWD",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "HOSTNAME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "NOTIFY_SOCKET",
];
/// Shorter ones are words; those that name a secret are one from half of that on.
const LEAST: usize = 8;

/// Takes the values of `variables` out of what a plugin said of its failure. In their place stand their names.
pub fn take_out(outcome: &mut Outcome, variables: impl Iterator<Item = (String, String)>) {
    for (name, value) in variables {
        for secret in [Some(value.as_str()), password_of(&value)].into_iter().flatten() {
            if might_be_one(&name, secret) {
                let instead = format!("<value of {name}>");
                if outcome.stderr.len() >= MOST_STDERR {
                    mend(&mut outcome.stderr, secret, &instead);
                }
                let [json, go] = in_json(secret);
                for form in [secret, &json, &go] {
                    for text in [&mut outcome.stderr, &mut outcome.stdout] {
                        if text.contains(form) {
                            *text = text.replace(form, &instead);
                        }
                    }
                }
            }
        }
    }
}

/// A value as it stands in JSON, without its quotation marks: as RFC 8259 needs it, and as Go's encoder writes it, which
/// spells out what HTML could take for its own.
pub fn in_json(value: &str) -> [String; 2] {
    let json = serde_json::to_string(value).unwrap_or_default();
    let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let go = json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    [json, go]
}

/// Where a long text has lost its beginning, the rest of a value may stand.
fn mend(text: &mut String, secret: &str, instead: &str) {
    let rests = secret.char_indices().filter_map(|(at, _)| secret.get(at..));
    let rest = rests.skip(1).find(|rest| rest.len() >= LEAST / 2 && text.starts_with(rest));
    if let Some(left) = rest.and_then(|rest| text.get(rest.len()..)) {
        *text = format!("{instead}{left}");
    }
}

fn might_be_one(name: &str, value: &str) -> bool {
    if EVERYWHERE.contains(&name) || name.starts_with("CNI_") || name.starts_with("LC_") {
        return false;
    }
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) || value.parse::<IpAddr>().is_ok();
    let is_word = is_plain || value.len() < LEAST || value.contains(' ') || value.starts_with('/');
    value.len() >= LEAST / 2 && (names_a_secret(name) || !is_word || password_of(value).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: [(&str, &str); 9] = [
        ("VAULT", "of\"all&none"),
        ("NODE_IP", "192.168.50.10"),
        ("PATH", "/usr/bin:/bin"),
        ("HTTPS_PROXY", "http://u:pass-of-proxy@host:8080"),
        ("NODE", "worker-north-1"),
        ("KUBECONFIG", "/etc/kubernetes/admin.conf"),
        ("API_TOKEN", "t0k3"),
        ("HOME", "/srv/of/all"),
        ("MODE", "plain"),
    ];

    fn said(words: &str) -> String {
        let mut outcome = Outcome { exit: Some(1), stderr: words.into(), ..Outcome::default() };
        let variables = VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        take_out(&mut outcome, variables);
        outcome.stderr
    }

    #[test]
    fn what_is_inherited_goes_but_for_what_everybody_has() {
        let words = "/usr/bin:/bin /srv/of/all /etc/kubernetes/admin.conf pass-of-proxy worker-north-1 t0k3 plain";
        let wanted = "/usr/bin:/bin /srv/of/all /etc/kubernetes/admin.conf \
            <value of HTTPS_PROXY> <value of NODE> <value of API_TOKEN> plain";
        assert_eq!(said(words), wanted);
        assert_eq!(said("by http://u:pass-of-proxy@host:8080"), "by <value of HTTPS_PROXY>");
        let quoted = r#"192.168.50.10 has {"a": "of\"all&none", "b": "of\"all\u0026none"}"#;
        assert_eq!(said(quoted), r#"192.168.50.10 has {"a": "<value of VAULT>", "b": "<value of VAULT>"}"#);
    }

    #[test]
    fn long_words_lose_their_beginning() {
        let cut = format!("north-1{}", "x".repeat(MOST_STDERR));
        assert!(said(&cut).starts_with("<value of NODE>xx"), "{}", &said(&cut)[..40]);
    }
}
