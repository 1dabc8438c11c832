//! As much of TOML as it takes to find the keys of container runtimes: strings and lists of strings, in tables of either form.
//!
//! What it does not understand it passes over.

/// Deepest table within tables on one line.
const MOST_DEEP: usize = 8;

/// One key with its values, and the table it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) table: Vec<String>,
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

/// Every key whose value is a string or a list of strings.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let (mut entries, mut table) = (Vec::new(), Vec::new());
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = parts(name.trim_matches(['[', ']']));
            continue;
        }
        let Some((key, value)) = split(line) else { continue };
        let mut value = value.trim().to_owned();
        let mut open = depth(&value);
        while open > 0 {
            let Some(more) = lines.next() else { break };
            value.push_str(more.trim());
            open += depth(more);
        }
        take(&table, (key, &value), MOST_DEEP, &mut entries);
    }
    entries
}

/// One key with its value, which may be a table of its own.
fn take(table: &[String], (key, value): (&str, &str), deep: usize, entries: &mut Vec<Entry>) {
    let mut path: Vec<String> = table.iter().cloned().chain(parts(key)).collect();
    if let Some(inner) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let pairs = pieces(inner).into_iter().filter_map(split).filter(|_| deep > 0);
        pairs.for_each(|(key, value)| take(&path, (key, value.trim()), deep - 1, entries));
    } else if let Some(key) = path.pop() {
        entries.push(Entry { table: path, key, values: strings(value) });
    }
}

/// A line without what stands behind `#`.
pub(super) fn without_comment(line: &str) -> &str {
    let end = outside_quotes(line).find(|(_, c)| *c == '#').map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line)
}

/// How many brackets are open at the end.
fn depth(line: &str) -> i64 {
    let step = |c: char| i64::from(matches!(c, '[' | '{')) - i64::from(matches!(c, ']' | '}'));
    outside_quotes(line).map(|(_, c)| step(c)).sum()
}

/// Key and value, at the first `=` outside quotes.
fn split(line: &str) -> Option<(&str, &str)> {
    let at = outside_quotes(line).find(|(_, c)| *c == '=').map(|(at, _)| at)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// The characters that are not in quotes, quotes themselves left out, with their places.
fn outside_quotes(line: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    line.char_indices().filter(move |(_, c)| match (quote, *c) {
        (None, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        (None, _) => true,
        (Some(open), c) => {
            if c == open {
                quote = None;
            }
            false
        }
    })
}

/// The parts of a dotted name.
fn parts(name: &str) -> Vec<String> {
    let dots = outside_quotes(name).filter(|(_, c)| *c == '.').map(|(at, _)| at).collect();
    let bare = |part: &str| part.trim().trim_matches(['"', '\'']).to_owned();
    cut(name, dots).into_iter().map(bare).collect()
}

/// What stands between the commas that are in no quotes and no brackets.
fn pieces(value: &str) -> Vec<&str> {
    let mut open = 0_usize;
    let commas = outside_quotes(value).filter_map(|(at, c)| {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        (c == ',' && open == 0).then_some(at)
    });
    let commas = commas.collect();
    cut(value, commas)
}

/// What stands between these places, each of one byte.
fn cut(text: &str, mut places: Vec<usize>) -> Vec<&str> {
    places.push(text.len());
    let mut from = 0;
    let piece = |to: usize| {
        let piece = text.get(from..to);
        from = to + 1;
        piece
    };
    places.into_iter().filter_map(piece).collect()
}

/// The strings of a value: itself, or those of its list.
fn strings(value: &str) -> Vec<String> {
    let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let unquote = |text: &str| {
        let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        Some(text.strip_prefix(quote)?.strip_suffix(quote)?.to_owned())
    };
    pieces(inner).into_iter().filter_map(|piece| unquote(piece.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_tables_of_either_form() {
        let entry = |table: &[&str], key: &str, values: &[&str]| Entry {
            table: table.iter().map(|part| (*part).to_owned()).collect(),
            key: key.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let deep = "a = ".to_owned() + &"{b = ".repeat(20) + "'x'" + &"}".repeat(20);
        for (text, wanted) in [
            ("[a.'b.c'.d]\nk = \"v\" # x", vec![entry(&["a", "b.c", "d"], "k", &["v"])]),
            ("a.b = ['x,y', \"z\"]", vec![entry(&["a"], "b", &["x,y", "z"])]),
            (
                "[t]\nc = { d = \"/x\", e.f = ['1', '2'], g = { h = '=' } }",
                vec![
                    entry(&["t", "c"], "d", &["/x"]),
                    entry(&["t", "c", "e"], "f", &["1", "2"]),
                    entry(&["t", "c", "g"], "h", &["="]),
                ],
            ),
            (
                "c = {\n  d = '/x', # here\n  e = ['1',\n '2']\n}\nk = '3'",
                vec![entry(&["c"], "d", &["/x"]), entry(&["c"], "e", &["1", "2"]), entry(&[], "k", &["3"])],
            ),
            (deep.as_str(), vec![]),
            ("[[x]]\n=\n= = \"\"", vec![entry(&["x"], "", &[]), entry(&["x"], "", &[])]),
        ] {
            assert_eq!(entries(text), wanted, "{text}");
        }
    }

    #[test]
    fn mutated_texts_never_panic() {
        crate::cni::mutation::of("[a.'b']\nc = { d = [\"x\", 'y'], e.f = '#' } # z\n", 5_000, |bytes| {
            drop(entries(&String::from_utf8_lossy(bytes)));
        });
    }
}
