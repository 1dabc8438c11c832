//! The generated blocks of a page: found by their markers, compared, or written anew. Makes none of the text.

use std::fs;
use std::path::PathBuf;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Compares every block of `docs/reference/<page>`, by name, with what it should be; or writes them.
pub(crate) fn page(page: &str, blocks: &[(&str, String)]) {
    let path = root().join("docs/reference").join(page);
    let found = fs::read_to_string(&path).unwrap();
    let wanted = blocks.iter().fold(found.clone(), |text, (name, block)| replaced(page, &text, name, block));
    if found == wanted {
        return;
    }
    if std::env::var_os("MULTUS_REGENERATE").is_some() {
        // Other tests read the page meanwhile: they see it whole, before or after.
        let beside = path.with_extension("new");
        fs::write(&beside, wanted).unwrap();
        fs::rename(&beside, &path).unwrap();
        return;
    }
    let (at, (is, should)) = found
        .lines()
        .zip(wanted.lines())
        .enumerate()
        .find(|(_, (is, should))| is != should)
        .unwrap_or((found.lines().count(), ("the end", "more")));
    panic!(
        "docs/reference/{page}:{} is not what the code says\n  is     {is}\n  should {should}\n\
         write it anew: MULTUS_REGENERATE=1 cargo test -p multus-agent --test reference",
        at + 1
    );
}

fn replaced(page: &str, text: &str, name: &str, block: &str) -> String {
    let (opening, closing) = (format!("<!-- generated: {name} -->\n"), format!("<!-- /generated: {name} -->"));
    let Some((before, rest)) = text.split_once(&opening) else { panic!("docs/reference/{page} has no block {name}") };
    let Some((_, after)) = rest.split_once(&closing) else { panic!("the block {name} of {page} has no end") };
    format!("{before}{opening}{}\n{closing}{after}", block.trim_end())
}

/// A Markdown table.
pub(crate) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace("|  |", "| |"));
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let rule = format!("|{}\n", " --- |".repeat(heads.len()));
    let rows = rows.into_iter().map(|row| line(&row)).collect::<String>();
    line(&heads) + &rule + &rows
}

#[test]
fn a_block_is_replaced_and_what_is_around_it_stays() {
    let text = "a\n<!-- generated: x -->\nold\n<!-- /generated: x -->\nb\n";
    assert_eq!(replaced("p", text, "x", "new\n"), "a\n<!-- generated: x -->\nnew\n<!-- /generated: x -->\nb\n");
}
