//! What the YAML documents in a piece of text are, read as leniently as kubectl reads them.
//!
//! Knows nothing of what they mean; a broken document never takes its neighbours with it.

use serde_json::Value;

use crate::fault::escape;

/// Most YAML events that aliases may repeat in one document: an honest manifest repeats a few labels.
const MOST_REPLAYED: usize = 10_000;
/// Longest document, and most of its lines, that are indented anew.
const MOST_MENDED: (usize, usize) = (64 << 10, 512);

/// A line that starts with `---` separates documents even inside a scalar (YAML 1.2, 9.1.2), so splitting by line is
/// exact, and a broken document does not take the others with it.
pub(super) fn documents(text: &str, most: usize) -> Vec<Result<Value, String>> {
    let mut pieces = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("---") {
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t']) => pieces.push(rest.to_owned()),
            _ => {
                if let Some(piece) = pieces.last_mut() {
                    piece.push_str(line);
                }
            }
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push('\n');
        }
        if pieces.len() > most {
            break;
        }
    }
    pieces.iter().filter(|piece| !is_blank(piece)).map(|piece| document(piece)).collect()
}

fn is_blank(piece: &str) -> bool {
    piece.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "..."
    })
}

/// Most NetworkAttachmentDefinitions have their JSON in quotes over several lines and end it with `}'` in the column of
/// the key. YAML wants every line of a quoted scalar indented deeper than its parent (YAML 1.2, 7.3); kubectl's parser
/// does not insist, so such lines are indented here. That changes nothing else: leading space is folded away.
fn document(piece: &str) -> Result<Value, String> {
    let mut mended: Option<Vec<String>> = None;
    for _ in 0..=MOST_MENDED.1 {
        let text = mended.as_ref().map(|lines| lines.join("\n") + "\n");
        let error = match parse(text.as_deref().unwrap_or(piece)) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let lines = mended.get_or_insert_with(|| piece.lines().map(str::to_owned).collect());
        let shallow = shallow_line(&error).filter(|_| piece.len() <= MOST_MENDED.0);
        let Some(line) = shallow.and_then(|number| lines.get_mut(number)) else {
            return Err(sentence(&error));
        };
        let deep = " ".repeat(deepest(piece) + 1);
        if line.starts_with(&deep) {
            return Err(sentence(&error));
        }
        line.insert_str(0, &deep);
    }
    Err(format!("more than {} lines of quoted scalars are not indented", MOST_MENDED.1))
}

fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPLAYED },
    };
    serde_saphyr::from_str_with_options::<Value>(text, options)
}

/// Which line, from 0, continues a quoted scalar without being indented deep enough, if that is what is wrong.
fn shallow_line(error: &serde_saphyr::Error) -> Option<usize> {
    let is_it = error.without_snippet().to_string().contains("multiline quoted scalar");
    let line = error.location().filter(|_| is_it)?.line();
    usize::try_from(line).ok()?.checked_sub(1)
}

fn deepest(piece: &str) -> usize {
    piece.lines().map(|line| line.len() - line.trim_start_matches(' ').len()).max().unwrap_or(0)
}

fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    escape(text.lines().next().unwrap_or("not YAML"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Value {
        let mut all = documents(text, 9);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).unwrap()
    }

    #[test]
    fn json_in_quotes_ends_where_its_key_begins() {
        for end in ["  }'", "}'", "    }'"] {
            let text =
                format!("spec:\n  config: '{{\n  \"type\": \"macvlan\",\n\n      \"x\": \"it''s\"\n{end}\nmore: 1\n");
            let read = only(&text);
            let config = read["spec"]["config"].as_str().unwrap();
            assert_eq!(config, "{ \"type\": \"macvlan\",\n\"x\": \"it's\" }", "{end}");
            assert_eq!(read["more"], 1);
        }
    }

    #[test]
    fn other_faults_stay_faults() {
        for bad in ["a: 'open\n", "a: [\n", "a: 'x\n' b: 1\n", "a: 1\n b: 2\n", "'\n", "a: \"\\q\"\n"] {
            assert!(documents(bad, 9).remove(0).is_err(), "{bad:?}");
        }
        let long = format!("a: '{}'\n", "\nx".repeat(MOST_MENDED.1 + 9));
        assert!(documents(&long, 9).remove(0).is_err());
    }
}
