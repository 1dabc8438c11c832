//! Checks of the node: facts are gathered here, judged in `diagnosis`, and told as a document.
//!
//! Changes nothing. With an agent all of it is known; from outside, only what a file tells.

mod memory;
mod outside;

use serde::Serialize;

use crate::config::Settings;
pub use crate::diagnosis::Category;
pub use crate::diagnosis::facts::Viewpoint;
use crate::diagnosis::{self, Facts, Problem, Severity, Verdict};
use crate::ops::context::Context;
use crate::ops::view::API_VERSION;

/// The names of the categories, in order: for the command line.
pub const CATEGORIES: [Category; 15] = Category::ALL;

/// The categories of these names; unknown ones are left out.
pub fn named(names: &[String]) -> Vec<Category> {
    names.iter().filter_map(|name| Category::of(name)).collect()
}

/// What all checks came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/checks.md describes them")]
pub struct CheckView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub success: bool,
    pub errors: usize,
    pub warnings: usize,
    /// May an error pass by itself?
    pub may_pass: bool,
    pub categories: Vec<CategoryView>,
}

/// One category with its checks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct CategoryView {
    pub name: &'static str,
    pub checks: Vec<CheckedView>,
}

/// One check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct CheckedView {
    pub name: &'static str,
    pub description: &'static str,
    pub result: &'static str,
    pub detail: String,
    pub problems: Vec<Problem>,
    pub hint: String,
}

/// Checks the node of the running agent; all categories, where none is named.
pub async fn check(context: &Context, categories: &[Category]) -> CheckView {
    told(&memory::facts(context).await, categories)
}

/// Checks what can be seen without an agent: before an installation, or because it does not answer.
pub fn from_outside(settings: &Settings, viewpoint: Viewpoint, categories: &[Category]) -> CheckView {
    told(&Facts { viewpoint, ..outside::facts(settings) }, categories)
}

/// What this process, the agent, may not do and should: cause and remedy of each.
pub fn missing_rights(settings: &Settings) -> Vec<Problem> {
    let facts = Facts { viewpoint: Viewpoint::Agent, ..outside::rights(settings) };
    let categories = told(&facts, &[Category::Privileges]).categories;
    categories.into_iter().flat_map(|category| category.checks).flat_map(|check| check.problems).collect()
}

fn told(facts: &Facts, asked: &[Category]) -> CheckView {
    let mut view = CheckView {
        api_version: API_VERSION,
        kind: "Check",
        success: true,
        errors: 0,
        warnings: 0,
        may_pass: false,
        categories: Vec::new(),
    };
    for (check, verdict) in diagnosis::judge(facts, asked) {
        let name = check.category.as_str();
        if view.categories.last().is_none_or(|last| last.name != name) {
            view.categories.push(CategoryView { name, checks: Vec::new() });
        }
        let (result, detail, problems) = match verdict {
            Verdict::Fine(detail) => ("ok", detail, Vec::new()),
            Verdict::Skipped(why) => ("skipped", why.to_owned(), Vec::new()),
            Verdict::Wrong(problems) if check.severity == Severity::Error => {
                view.errors += problems.len();
                view.may_pass |= check.may_pass;
                ("error", String::new(), problems)
            }
            Verdict::Wrong(problems) => {
                view.warnings += problems.len();
                ("warning", String::new(), problems)
            }
        };
        let hint = format!("docs/reference/checks.md#{}", check.name);
        let checked = CheckedView { name: check.name, description: check.about, result, detail, problems, hint };
        if let Some(category) = view.categories.last_mut() {
            category.checks.push(checked);
        }
    }
    view.success = view.errors == 0;
    view
}
