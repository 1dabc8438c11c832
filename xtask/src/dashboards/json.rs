//! How a JSON document is printed so that a person can read it, and a change of it. Reads none.

use std::fmt::Write as _;

/// What fits on a line is printed on one.
const WIDTH: usize = 118;

/// A value that is only ever printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// Keys stand in the order they were given in.
    Object(Vec<(&'static str, Json)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Json {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(list: Vec<T>) -> Self {
        Self::List(list.into_iter().map(Into::into).collect())
    }
}

/// An object, written as one: `object!{"type": "stat", "id": 3}`.
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::dashboards::json::Json::Object(vec![$(($key, $crate::dashboards::json::Json::from($value))),*])
    };
}
pub(super) use object;

impl Json {
    /// The document, with a line feed at its end.
    pub(super) fn print(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text.push('\n');
        text
    }

    fn write(&self, text: &mut String, depth: usize) {
        let line = self.on_one_line();
        if depth > 0 && depth * 2 + line.len() <= WIDTH {
            text.push_str(&line);
            return;
        }
        match self {
            Self::List(items) => block(text, depth, ['[', ']'], items, |text, item| item.write(text, depth + 1)),
            Self::Object(fields) => block(text, depth, ['{', '}'], fields, |text, (key, value)| {
                let _ = write!(text, "{}: ", quoted(key));
                value.write(text, depth + 1);
            }),
            _ => text.push_str(&line),
        }
    }

    fn on_one_line(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(words) => quoted(words),
            Self::List(items) => {
                format!("[{}]", items.iter().map(Self::on_one_line).collect::<Vec<_>>().join(", "))
            }
            Self::Object(fields) => {
                let field = |(key, value): &(&str, Self)| format!("{}: {}", quoted(key), value.on_one_line());
                format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn block<T>(text: &mut String, depth: usize, [open, close]: [char; 2], all: &[T], each: impl Fn(&mut String, &T)) {
    text.push(open);
    for (number, one) in all.iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
        each(text, one);
    }
    let _ = write!(text, "\n{}{close}", "  ".repeat(depth));
}

fn quoted(words: &str) -> String {
    let mut text = String::from('"');
    for c in words.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_fits_is_on_one_line_and_the_rest_is_not() {
        let long = "x".repeat(120);
        let document =
            object! {"a": 1.5, "b": vec!["say \"no\"\n", "\u{1}"], "c": object! {"d": long.as_str()}, "e": true};
        let wanted = format!(
            "{{\n  \"a\": 1.5,\n  \"b\": [\"say \\\"no\\\"\\n\", \"\\u0001\"],\n  \"c\": {{\n    \"d\": \"{long}\"\n  }},\n  \"e\": true\n}}\n"
        );
        assert_eq!(document.print(), wanted);
    }
}
