//! How values are taken out of a text: wherever they stand, as they are and as sentences quote them. Which values those are,
//! others say.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::inherited::in_json;
use crate::fault::escape;

/// Shorter ones are no secrets: taking them out would tear words.
pub const LEAST: usize = 4;
/// So much of a long one gives it away: sentences cut what they quote.
const TELLING: usize = 24;

/// Values that are to be taken out: texts by their first bytes, so that a text is read once however many there are. With
/// each what stands in its place.
#[derive(Debug, Clone, Default)]
pub struct Values {
    texts: HashMap<[u8; LEAST], Vec<(String, usize)>>,
    numbers: HashMap<String, usize>,
    instead: Vec<String>,
    count: usize,
}

impl Values {
    /// One more, with what is to stand in its place. What is too short to be a secret is let be.
    pub fn add(&mut self, value: &str, instead: &str) {
        if value.len() < LEAST {
            return;
        }
        let place = match self.instead.last() {
            Some(last) if last == instead => self.instead.len() - 1,
            _ => {
                self.instead.push(instead.to_owned());
                self.instead.len() - 1
            }
        };
        self.count += 1;
        if value.bytes().all(|byte| byte.is_ascii_digit()) {
            self.numbers.insert(value.to_owned(), place);
            return;
        }
        // As it is, as sentences quote it, and as it stands in JSON of either writer.
        let [json, go] = in_json(value);
        for form in BTreeSet::from([value.to_owned(), escape(value), json, go]) {
            let Some(head) = form.as_bytes().first_chunk::<LEAST>() else { continue };
            self.texts.entry(*head).or_default().push((form, place));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A text without them.
    pub fn out_of_text(&self, text: &str) -> String {
        self.without(text, true)
    }

    /// The end of a text that has lost its beginning: where it begins, the rest of a value may stand.
    pub fn out_of_end(&self, text: &str) -> String {
        let rests = self.texts.values().flatten().filter_map(|(form, place)| Some((rest_of(form, text)?, place)));
        match rests.max() {
            Some((length, place)) => {
                let left = text.get(length..).unwrap_or_default();
                self.instead.get(*place).cloned().unwrap_or_default() + &self.without(left, true)
            }
            None => self.without(text, true),
        }
    }

    /// A page of figures without them: a number there is a figure, and no secret.
    pub fn out_of_figures(&self, text: &str) -> String {
        self.without(text, false)
    }

    /// A document without them in any of its texts.
    pub fn out_of(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.out_of_text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.out_of(item)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, self.out_of(value))).collect(),
            plain => plain,
        }
    }

    fn without(&self, text: &str, numbers_too: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut before) = (text, None);
        while let Some(next) = rest.chars().next() {
            let is_number = numbers_too && next.is_ascii_digit() && !before.is_some_and(char::is_alphanumeric);
            let found = self.text_at(rest).or_else(|| self.number_at(rest).filter(|_| is_number));
            match found.and_then(|(_, place)| self.instead.get(place)) {
                Some(instead) => out.push_str(instead),
                None => out.push(next),
            }
            let (passed, left) = rest.split_at(found.map_or(next.len_utf8(), |(length, _)| length));
            (rest, before) = (left, passed.chars().next_back());
        }
        out
    }

    /// How long the value is that `rest` begins with: a whole one, or as much of one as gives it away; and its place.
    fn text_at(&self, rest: &str) -> Option<(usize, usize)> {
        let candidates = self.texts.get(rest.as_bytes().first_chunk::<LEAST>()?)?;
        let same = |value: &String| -> usize {
            rest.chars().zip(value.chars()).take_while(|(one, other)| one == other).map(|(c, _)| c.len_utf8()).sum()
        };
        let lengths = candidates.iter().map(|(value, place)| (same(value), value.len(), *place));
        let telling = lengths.filter(|(same, whole, _)| same == whole || *same >= TELLING);
        telling.map(|(same, _, place)| (same, place)).max_by_key(|(same, _)| *same)
    }

    fn number_at(&self, rest: &str) -> Option<(usize, usize)> {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let number = rest.get(..end)?;
        self.numbers.get(number).map(|place| (end, *place))
    }
}

/// How much of the end of `value` the text begins with, where that is enough to tell.
fn rest_of(value: &str, text: &str) -> Option<usize> {
    let first = value.len().saturating_sub(text.len());
    let ends = value.char_indices().map(|(at, _)| at).filter(|at| *at >= first);
    let rests = ends.filter_map(|at| value.get(at..)).take_while(|rest| rest.len() >= LEAST);
    rests.filter(|rest| text.starts_with(*rest)).map(str::len).next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OUT: &str = "<out>";

    fn values(of: &[&str]) -> Values {
        let mut values = Values::default();
        for value in of {
            values.add(value, OUT);
        }
        values
    }

    #[test]
    fn a_value_goes_wherever_it_stands_and_however_it_is_quoted() {
        let some = values(&["hunter22", "abc", "k\u{1}ey1", "say \"x\"", "4711815"]);
        for (text, wanted) in [
            ("log in with hunter22, hunter2", "log in with <out>, hunter2"),
            ("abc k\\u{1}ey1 k\u{1}ey1 k\\u0001ey1", "abc <out> <out> <out>"),
            (r#"he did say "x", or say \"x\""#, "he did <out>, or <out>"),
            ("pin 4711815, id 14711815", "pin <out>, id 14711815"),
        ] {
            assert_eq!(some.out_of_text(text), wanted);
        }
        assert_eq!(some.out_of_figures("multus_x 4711815\n"), "multus_x 4711815\n");
        let document = some.out_of(json!({"a": ["hunter22", {"b": "x hunter22 y"}], "n": 5}));
        assert_eq!(document, json!({"a": [OUT, {"b": "x <out> y"}], "n": 5}));
        assert!(values(&["abc"]).is_empty());
    }

    #[test]
    fn a_part_that_gives_a_value_away_goes_too() {
        let long = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImNhbmFyeSJ9.eyJpc3MiOiJjYW5hcnkifQ.c2lnbmF0dXJlLW9mLWEtY2FuYXJ5";
        let cut = crate::fault::quote(long);
        assert!(cut.ends_with('…') && cut.len() < long.len(), "sentences cut it: {cut}");
        let text = format!("bad {cut}, whole {long}");
        assert_eq!(values(&[long]).out_of_text(&text), "bad \"<out>\"…, whole <out>");
        // What is left of it when a long text loses its beginning.
        let some = values(&["hunter22", "other-one"]);
        assert_eq!(some.out_of_end("ter22 is wrong, hunter22"), "<out> is wrong, <out>");
        assert_eq!(some.out_of_end("22 is wrong"), "22 is wrong");
        assert_eq!(some.out_of_end("hunter22 other-one"), "<out> <out>");
    }

    #[test]
    fn many_values_cost_no_more_than_a_few() {
        let mut many = Values::default();
        (0..20_000).for_each(|n| many.add(&format!("{n}value-of-network-{n}"), OUT));
        let (page, began) = ("a line of a log that has none of them\n".repeat(20_000), std::time::Instant::now());
        assert_eq!(many.out_of_text(&page), page);
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
