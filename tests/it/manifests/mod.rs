//! Whether what is in `deploy/` can be applied, means the same in every form, and asks for nothing that the agent does not
//! know or need. Renders with kustomize's and helm's own libraries; applies nothing.

mod chart;
mod overlays;
mod policies;
mod privileges;
mod rendered;
mod schema;
mod uninstall;

/// Ends the test, visibly, where `cargo xtask setup` has not put what renders manifests.
macro_rules! needs_kubernetes {
    () => {
        if let Some(reason) = crate::manifests::rendered::missing() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: {}: {reason}\n", std::thread::current().name().unwrap_or("a test")),
            );
            return;
        }
    };
}
pub(crate) use needs_kubernetes;
