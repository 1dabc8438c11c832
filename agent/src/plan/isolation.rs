//! Whether a pod may use a network of another namespace.
//!
//! Nothing here knows whether the network exists.

use crate::config::Policy;
use crate::fault::{CniError, code};
use crate::names::{NadRef, ObjectName};

/// Checks a network named by the networks annotation of a pod in `namespace`.
///
/// # Errors
/// Code 102 with upstream's own sentence.
pub fn check(policy: &Policy, namespace: &ObjectName, network: &NadRef) -> Result<(), CniError> {
    let target = &network.namespace;
    let is_global = policy.global_namespaces.iter().any(|global| global == target.as_str());
    if !policy.namespace_isolation || target == namespace || is_global {
        return Ok(());
    }
    Err(CniError::new(
        code::ISOLATION,
        format!(
            "namespace isolation enabled, annotation violates permission, pod is in namespace {namespace} but refers to \
             target namespace {target}"
        ),
    )
    .remedy(format!("use a network of namespace {namespace}, or add {target} to globalNamespaces")))
}

/// Checks a network named by the default-network annotation: those of the Multus namespace are there for everybody.
///
/// # Errors
/// As [`check`].
pub fn check_default(policy: &Policy, namespace: &ObjectName, network: &NadRef) -> Result<(), CniError> {
    if network.namespace == policy.multus_namespace { Ok(()) } else { check(policy, namespace, network) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_what() {
        let mut policy = Policy { namespace_isolation: true, ..Policy::default() };
        policy.global_namespaces = vec!["default".into(), "shared".into()];
        let namespace = ObjectName::new("home").unwrap();
        // (network's namespace, allowed in the networks annotation, allowed in the default-network annotation)
        let table = [
            ("home", true, true),
            ("default", true, true),
            ("shared", true, true),
            ("other", false, false),
            ("kube-system", false, true),
        ];
        for (target, listed, default) in table {
            let network = NadRef::new(target, "n").unwrap();
            assert_eq!(check(&policy, &namespace, &network).is_ok(), listed, "{target}");
            assert_eq!(check_default(&policy, &namespace, &network).is_ok(), default, "{target}");
            let open = Policy { namespace_isolation: false, ..policy.clone() };
            assert!(check(&open, &namespace, &network).is_ok());
        }
        let error = check(&policy, &namespace, &NadRef::new("other", "n").unwrap()).unwrap_err();
        assert_eq!(error.code, code::ISOLATION);
        assert_eq!(
            error.msg,
            "namespace isolation enabled, annotation violates permission, pod is in namespace home but refers to target \
             namespace other"
        );
    }
}
