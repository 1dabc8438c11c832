//! How are the rows of `top` sorted and shown? A table of names and numbers, and how numbers are written.
//!
//! Knows nothing of what the rows are about.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use crate::cli::output;

/// A value of a row.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// A name.
    Text(String),
    /// A number, with its way to be shown.
    Number(f64, fn(f64) -> String),
    /// Not known.
    Nothing,
}

impl Cell {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number, show) => show(*number),
            Self::Nothing => String::new(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number, _) => json!((number * 1000.0).round() / 1000.0),
            Self::Nothing => Value::Null,
        }
    }
}

/// Rows under heads.
#[derive(Debug)]
pub(super) struct Table {
    heads: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
    by: usize,
}

impl Table {
    /// Rows that are not sorted yet.
    pub(super) fn of(heads: &'static [&'static str], rows: Vec<Vec<Cell>>) -> Self {
        Self { heads, rows, by: 0 }
    }

    /// Sorts by a column, by default the first number: numbers from the highest, names from the first; or from the other
    /// end.
    pub(super) fn sort(&mut self, column: Option<usize>, reverse: bool) {
        let is_number = |at: &usize| self.rows.iter().any(|row| matches!(row.get(*at), Some(Cell::Number(..))));
        let by = column.or_else(|| (0..self.heads.len()).find(is_number)).unwrap_or(0);
        self.rows.sort_by(|a, b| compared(a.get(by), b.get(by)).then_with(|| names(a).cmp(&names(b))));
        if reverse {
            self.rows.reverse();
        }
        self.by = by;
    }

    /// The column that it is sorted by.
    pub(super) fn by(&self) -> usize {
        self.by
    }

    /// The heads.
    pub(super) fn heads(&self) -> &'static [&'static str] {
        self.heads
    }

    /// What each row shows, from row `above` on: whether it is a number, and its text.
    pub(super) fn shown(&self, above: usize) -> Vec<Vec<(bool, String)>> {
        let cell = |cell: &Cell| (!matches!(cell, Cell::Text(_)), cell.shown());
        self.rows.iter().skip(above).map(|row| row.iter().map(cell).collect()).collect()
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The head that it is sorted by.
    pub(super) fn sorted_by(&self) -> &'static str {
        self.heads.get(self.by).copied().unwrap_or_default()
    }

    /// As a table.
    pub(super) fn text(&self) -> String {
        output::table(self.heads, self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()).collect())
    }

    /// As items of a document.
    pub(super) fn items(&self) -> Vec<Value> {
        let item = |row: &Vec<Cell>| {
            let pairs = self.heads.iter().zip(row).map(|(head, cell)| (head.to_lowercase(), cell.value()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        self.rows.iter().map(item).collect()
    }
}

fn compared(a: Option<&Cell>, b: Option<&Cell>) -> Ordering {
    match (a, b) {
        (Some(Cell::Number(a, _)), Some(Cell::Number(b, _))) => b.total_cmp(a),
        (Some(Cell::Text(a)), Some(Cell::Text(b))) => a.cmp(b),
        (Some(Cell::Number(..)), _) => Ordering::Less,
        (_, Some(Cell::Number(..))) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

fn names(row: &[Cell]) -> Vec<&str> {
    row.iter().filter_map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None }).collect()
}

/// With three digits or so, and `k`, `M`, `G` beyond a thousand.
pub(super) fn short(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n < 1e3 => (n, ""),
        n if n < 1e6 => (n / 1e3, "k"),
        n if n < 1e9 => (n / 1e6, "M"),
        n => (n / 1e9, "G"),
    };
    if unit.is_empty() && scaled.fract().abs() < 0.05 {
        return format!("{scaled:.0}");
    }
    if scaled < 100.0 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}

/// Bits.
pub(super) fn bits(number: f64) -> String {
    short(number) + "b"
}

/// Hundredths.
pub(super) fn percent(number: f64) -> String {
    format!("{number:.0}%")
}

/// Milliseconds.
pub(super) fn millis(number: f64) -> String {
    if number < 10.0 { format!("{number:.1}ms") } else { format!("{number:.0}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (12.0, "12"),
            (999.0, "999"),
            (1_234.0, "1.2k"),
            (123_456.0, "123k"),
            (5e6, "5.0M"),
            (2e9, "2.0G"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
