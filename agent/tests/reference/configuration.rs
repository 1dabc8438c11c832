//! `configuration.md`: every key, from the table that also makes schema and defaults.

use multus_agent::config::keys::{self, Key, Section};

use crate::block::{page, table};

const SECTIONS: [(&str, Section); 9] = [
    ("places", Section::Places),
    ("execution", Section::Execution),
    ("log", Section::Log),
    ("sources", Section::Sources),
    ("networks", Section::Networks),
    ("limits", Section::Limits),
    ("datapath", Section::Datapath),
    ("inert", Section::Inert),
    ("conf", Section::Conf),
];

#[test]
fn the_configuration_reference_says_every_key() {
    let block = |section| {
        let rows = keys::all().filter(|key| key.section == section).map(row);
        table(&["key", "type", "default", "since", "meaning"], rows)
    };
    let blocks: Vec<_> = SECTIONS.into_iter().map(|(name, section)| (name, block(section))).collect();
    page("configuration.md", &blocks);
    let told: usize =
        SECTIONS.iter().map(|(_, section)| keys::all().filter(|key| key.section == *section).count()).sum();
    assert_eq!(told, keys::all().count(), "a section is not told");
}

fn row(key: &Key) -> Vec<String> {
    let default = match (key.default, key.default_value()) {
        ("", _) => "none".to_owned(),
        (_, serde_json::Value::String(text)) => format!("`{text}`"),
        (json, _) if key.has_default() => format!("`{json}`"),
        (words, _) => words.to_owned(),
    };
    vec![format!("`{}`", key.name), key.kind.word().to_owned(), default, key.since.to_owned(), key.meaning.to_owned()]
}
