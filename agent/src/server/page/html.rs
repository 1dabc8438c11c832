//! How does foreign text get into the page? Through [`Html`] alone, which escapes it: markup is known when this is compiled.
//!
//! Knows no name of an element and nothing of what the page shows.

use std::fmt::{self, Display, Write};

use crate::fault::is_hidden;

/// The most characters of a foreign name.
const MOST: usize = 96;
/// The most characters of a sentence with foreign names in it.
const MOST_OF_SENTENCE: usize = 600;

/// A piece of a document.
#[derive(Debug, Default)]
pub(super) struct Html(String);

/// Attributes: names of ours, values from anywhere.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Html {
    /// Adds markup of ours.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, escaped.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        let _infallible = write!(Escaped { out: &mut self.0, left: usize::MAX }, "{text}");
        self
    }

    /// Adds a name that somebody else chose: escaped, and cut where it is too long to be read.
    pub(super) fn name(&mut self, name: &str) -> &mut Self {
        self.cut(name, MOST)
    }

    /// Adds a sentence of ours with foreign names in it, as [`Self::name`] does.
    pub(super) fn sentence(&mut self, sentence: &str) -> &mut Self {
        self.cut(sentence, MOST_OF_SENTENCE)
    }

    fn cut(&mut self, text: &str, most: usize) -> &mut Self {
        let _infallible = Escaped { out: &mut self.0, left: most }.write_str(text);
        if text.chars().nth(most).is_some() {
            self.0.push('…');
        }
        self
    }

    /// Adds an element around what `content` adds.
    pub(super) fn element(
        &mut self,
        element: &'static str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Self),
    ) -> &mut Self {
        self.open(element, attributes);
        content(self);
        self.0.push_str("</");
        self.0.push_str(element);
        self.0.push('>');
        self
    }

    /// Adds an element with nothing but text in it.
    pub(super) fn leaf(&mut self, element: &'static str, text: impl Display) -> &mut Self {
        self.element(element, &[], |html| {
            html.text(text);
        })
    }

    /// Adds an element that has no end.
    pub(super) fn open(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.0.push('<');
        self.0.push_str(element);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
        self.0.push('>');
        self
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Writes text so that it stays text, between elements and in attributes with quotes; invisible characters are shown by
/// their numbers.
struct Escaped<'a> {
    out: &'a mut String,
    left: usize,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars().take(self.left) {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c if c.is_control() || is_hidden(c) => self.out.extend(c.escape_default()),
                c => self.out.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(build: impl FnOnce(&mut Html)) -> String {
        let mut html = Html::default();
        build(&mut html);
        html.finish()
    }

    #[test]
    fn text_stays_text() {
        for (text, wanted) in [
            ("net1", "net1"),
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            ("a\u{202e}b\u{1b}[2J\n\0", "a\\u{202e}b\\u{1b}[2J\\n\\u{0}"),
            ("Küche 😀", "Küche 😀"),
        ] {
            assert_eq!(
                of(|html| {
                    html.text(text);
                }),
                wanted,
                "as text"
            );
            assert_eq!(
                of(|html| {
                    html.name(text);
                }),
                wanted,
                "as a name"
            );
            let wanted = format!("<p class=\"{wanted}\"></p>");
            assert_eq!(
                of(|html| {
                    html.element("p", &[("class", &text)], |_| ());
                }),
                wanted,
                "as an attribute"
            );
        }
    }

    #[test]
    fn names_are_cut_and_texts_are_not() {
        let long = "ä".repeat(1000);
        assert_eq!(
            of(|html| {
                html.name(&long);
            }),
            "ä".repeat(MOST) + "…"
        );
        assert_eq!(
            of(|html| {
                html.text(&long);
            }),
            long
        );
        let fits = "<".repeat(MOST);
        assert_eq!(
            of(|html| {
                html.name(&fits);
            }),
            "&lt;".repeat(MOST)
        );
    }
}
