//! `errors.md`: every error code, from `fault::code`.

use multus_agent::fault::code;

use crate::block::{page, table};

#[test]
fn the_error_reference_says_every_code() {
    assert!(code::ALL.is_sorted_by(|a, b| a.0 < b.0), "in the order of the numbers, each once");
    let rows = code::ALL.iter().map(|(number, meaning, remedy)| {
        vec![number.to_string(), format!("<a id=\"code-{number}\"></a>{meaning}"), (*remedy).to_owned()]
    });
    page("errors.md", &[("codes", table(&["code", "meaning", "what to do"], rows))]);
}
