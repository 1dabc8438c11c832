//! The texts of one operation in one string, each known by where it lies: many short ones, in little memory.
//!
//! Their length is bounded, each by itself and all together; what does not fit is cut.

/// Most bytes of one text, and of all texts of an operation.
pub(super) const MOST_TEXT: usize = 400;
pub(super) const MOST_TEXTS: usize = 16 << 10;

/// A piece of an operation's texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    from: u16,
    to: u16,
}

/// All texts of an operation, one after the other.
#[derive(Debug, Default)]
pub struct Texts(String);

impl Texts {
    /// Keeps `text`, or as much of it as there is room for.
    pub fn put(&mut self, text: &str) -> Span {
        let room = MOST_TEXTS.saturating_sub(self.0.len()).min(MOST_TEXT);
        let from = self.0.len();
        self.0.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
        let at = |index: usize| u16::try_from(index).unwrap_or(0);
        Span { from: at(from), to: at(self.0.len()) }
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// For good, without spare room.
    pub fn finish(self) -> Box<str> {
        self.0.into_boxed_str()
    }
}

/// The text of a span.
pub fn text_of(texts: &str, span: Span) -> &str {
    texts.get(usize::from(span.from)..usize::from(span.to)).unwrap_or_default()
}
