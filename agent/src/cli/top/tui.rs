//! Frames drawn by ratatui, which writes what changed since the last one and nothing else.
//!
//! Its terminal is ours: modes and keys are `sys::terminal`'s, and a few control sequences are all that is written. So no
//! crate that drives terminals is needed.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};

use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Alignment, Constraint, Layout, Position, Size};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row, Table as Grid};

use super::screen::{Frame, head, size};
use crate::cli::Ending;
use crate::cli::output::safe;

/// Between two columns.
const GAP: u16 = 2;

/// Draws frames on the terminal behind standard output.
#[derive(Debug, Default)]
pub(super) struct Painter {
    terminal: Option<Terminal<Ansi>>,
}

impl Painter {
    /// Draws a frame; false when nobody reads any more.
    pub(super) fn paint(&mut self, frame: &Frame<'_>, help: Option<&str>) -> Result<bool, Ending> {
        match self.draw(frame, help) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Ending::Failed(format!("write to the terminal: {error}"))),
        }
    }

    /// Somebody else wrote on the terminal: the next frame is drawn whole.
    pub(super) fn forget(&mut self) {
        self.terminal = None;
    }

    fn draw(&mut self, frame: &Frame<'_>, help: Option<&str>) -> io::Result<()> {
        let terminal = match &mut self.terminal {
            Some(terminal) => terminal,
            none => {
                let mut terminal = Terminal::new(Ansi::default())?;
                terminal.clear()?;
                none.insert(terminal)
            }
        };
        let (grid, is_empty) = (grid(frame, help.is_some()), frame.table.len() == 0);
        terminal.draw(|canvas| {
            let footer = Constraint::Length(u16::from(help.is_some()));
            let [top, middle, bottom] =
                Layout::vertical([Constraint::Length(1), Constraint::Fill(1), footer]).areas(canvas.area());
            canvas.render_widget(Paragraph::new(frame.title.as_str()), top);
            if is_empty {
                canvas.render_widget(Paragraph::new("nothing to list"), middle);
            } else {
                canvas.render_widget(grid, middle);
            }
            canvas.render_widget(Paragraph::new(help.unwrap_or_default()).style(Modifier::DIM), bottom);
        })?;
        Ok(())
    }
}

/// The table, as wide as its texts; numbers on the right.
fn grid(frame: &Frame<'_>, is_chosen: bool) -> Grid<'static> {
    let rows: Vec<Vec<(bool, String)>> = frame.table.shown(frame.above);
    let names = frame.table.heads().iter().enumerate();
    let heads: Vec<String> = names.map(|(at, name)| head(at, name, is_chosen)).collect();
    let is_number = |at: usize| rows.iter().filter_map(|row| row.get(at)).any(|(is_number, _)| *is_number);
    let aligned = |at: usize, text: String| {
        let side = if is_number(at) { Alignment::Right } else { Alignment::Left };
        Line::from(text).alignment(side)
    };
    let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { safe(text) };
    let mut widths: Vec<usize> = heads.iter().map(|head| Line::from(head.as_str()).width()).collect();
    let body: Vec<Row<'static>> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().enumerate().map(|(at, (_, text))| aligned(at, shown(text)));
            let cells: Vec<Line<'static>> = cells.collect();
            for (width, cell) in widths.iter_mut().zip(&cells) {
                *width = (*width).max(cell.width());
            }
            Row::new(cells)
        })
        .collect();
    let title = |(at, head): (usize, String)| {
        let chosen = if at == frame.table.by() { Modifier::REVERSED } else { Modifier::empty() };
        Text::from(aligned(at, head)).style(Style::new().add_modifier(Modifier::BOLD | chosen))
    };
    let header = Row::new(heads.into_iter().enumerate().map(title).collect::<Vec<_>>());
    let widths = widths.into_iter().map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
    Grid::new(body, widths).header(header).column_spacing(GAP)
}

/// A terminal that understands ECMA-48: cursor, erasing, bold, dim and reversed. What is drawn is written at `flush`, at once.
#[derive(Debug, Default)]
struct Ansi {
    waiting: String,
}

impl Backend for Ansi {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, cells: I) -> io::Result<()> {
        let mut next = None;
        let mut look = Modifier::empty();
        for (x, y, cell) in cells {
            if next != Some((x, y)) {
                let _infallible = write!(self.waiting, "\u{1b}[{};{}H", u32::from(y) + 1, u32::from(x) + 1);
            }
            if cell.modifier != look {
                look = cell.modifier;
                self.waiting.push_str("\u{1b}[0");
                for (modifier, code) in [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2"), (Modifier::REVERSED, ";7")] {
                    self.waiting.push_str(if look.contains(modifier) { code } else { "" });
                }
                self.waiting.push('m');
            }
            self.waiting.push_str(cell.symbol());
            // Behind a wide character the cursor is elsewhere: then it is set anew.
            next = (cell.symbol().len() == 1).then(|| (x.saturating_add(1), y));
        }
        if look != Modifier::empty() {
            self.waiting.push_str("\u{1b}[0m");
        }
        Ok(())
    }

    /// It is hidden all the time.
    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, _position: P) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.waiting.push_str("\u{1b}[2J");
        Ok(())
    }

    fn clear_region(&mut self, _region: ClearType) -> io::Result<()> {
        self.clear()
    }

    fn size(&self) -> io::Result<Size> {
        let (columns, lines) = size();
        Ok(Size::new(columns, lines))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut terminal = io::stdout();
        terminal.write_all(waiting.as_bytes()).and_then(|()| terminal.flush())
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::widgets::Widget;
    use serde_json::json;

    use super::super::rates;
    use super::*;

    #[test]
    fn hostile_names_stay_in_their_cells() {
        let item = |packets: u64| {
            json!({"namespace": "a\u{1b}[2J", "pod": "b\u{202e}", "container": "c", "interface": "net1", "network": "n",
                   "receive": {"packets": packets, "bytes": 0}, "transmit": {"packets": 0, "bytes": 0}})
        };
        let documents = [1, 2].map(|packets| json!({"items": [item(packets)]}));
        let mut table = rates::attachments(&documents[0], &documents[1], 1.0);
        table.sort(None, false);
        let frame = Frame { title: String::new(), table: &table, above: 0, help: "" };
        let area = Rect::new(0, 0, 120, 2);
        let mut buffer = Buffer::empty(area);
        Widget::render(grid(&frame, true), area, &mut buffer);
        let mut terminal = Ansi::default();
        let cells = buffer.content().iter().enumerate().map(|(at, cell)| {
            let (x, y) = buffer.pos_of(at);
            (x, y, cell)
        });
        Backend::draw(&mut terminal, cells).unwrap();
        let drawn = terminal.waiting;
        assert!(
            drawn.contains("1:NAMESPACE") && drawn.contains("a\\u{1b}[2J") && drawn.contains("b\\u{202e}"),
            "{drawn:?}"
        );
        let sequences: Vec<&str> = drawn.split('\u{1b}').skip(1).collect();
        let is_ours = |text: &&str| text.starts_with('[') && text.find(['H', 'm']).is_some_and(|at| at < 9);
        assert!(sequences.iter().all(is_ours), "{sequences:?}");
    }
}
