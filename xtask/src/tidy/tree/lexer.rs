//! Rust text with everything blanked that is not code. Knows as much of the grammar as that takes.
//!
//! Blanking keeps every line break, so a line number of the result is one of the source.

/// `source` with comments and the insides of string and character literals replaced by spaces.
pub(super) fn without_prose(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let prose = prose_length(rest, out.chars().next_back());
        if prose == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (prose, after) = rest.split_at(prose);
            out.extend(prose.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    out
}

/// Bytes of the comment or literal at the start of `rest`; 0 when there is code.
fn prose_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if in_word { 0 } else { raw_string(rest) }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// A character literal; 0 for a lifetime, which has no closing quote right after its first character.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#` and the same behind `b` or `c`; 0 for anything else.
fn raw_string(rest: &str) -> usize {
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let Some(body) = body.strip_prefix('r') else { return 0 };
    let hashes = body.len() - body.trim_start_matches('#').len();
    let Some(inside) = body[hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - inside.len();
    inside.find(&end).map_or(rest.len(), |at| start + at + end.len())
}

/// `code` (without prose) with every item behind `#[cfg(test)]` blanked; all of it, where it opens with `#![cfg(test)]`.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let blank = |item: &str| item.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect::<String>();
    if code.trim_start().starts_with("#![cfg(test)]") {
        return blank(code);
    }
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        out.push_str(before);
        let (item, after) = item.split_at(item_length(item));
        out.push_str(&blank(item));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Bytes up to the `;` or the closing brace that ends the item at the start of `code`.
fn item_length(code: &str) -> usize {
    let mut depth = 0_u32;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blanked_and_lines_stay() {
        for (source, code) in [
            ("a // crate::x\nb", "a b"),
            ("a /* x /* y */ z\n */ b", "a b"),
            (r#"f("crate::\"x", y)"#, "f( , y)"),
            ("f(r#\"a\"b\"#, c)", "f( , c)"),
            ("f(br\"\\\", c)", "f( , c)"),
            ("f('\"', '\\'', 'x')", "f( , , )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("for r in x {}", "for r in x {}"),
        ] {
            let left = without_prose(source);
            assert_eq!(left.split_whitespace().collect::<Vec<_>>().join(" "), code, "{source}");
            assert_eq!((left.len(), left.find('\n')), (source.len(), source.find('\n')), "{source}");
        }
    }

    #[test]
    fn tests_are_blanked() {
        let code = "use a;\n#[cfg(test)]\nmod tests {\n fn f() { x }\n}\nuse b;\n#[cfg(test)]\nuse c;\nuse d;";
        let left = without_tests(code);
        assert_eq!(left.lines().count(), code.lines().count());
        assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["use", "a;", "use", "b;", "use", "d;"]);
        assert_eq!(without_tests("\n#![cfg(test)]\nuse a;\n").trim(), "", "a file of tests");
    }
}
