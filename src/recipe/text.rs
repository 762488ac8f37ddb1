//! TOML as this crate writes it: one spelling for each value.

/// A key: bare where TOML allows it.
pub(crate) fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("\"{}\"", escaped(name, false))
    }
}

/// A string: over several lines if it has them, in single quotes where double
/// ones would need escapes, else in double quotes.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains('\n') {
        return format!("\"\"\"\n{}\"\"\"", escaped(text, true));
    }
    let needs_escapes = text.contains(['"', '\\']);
    let literal = !text.contains('\'') && !text.contains(is_control);
    if needs_escapes && literal {
        format!("'{text}'")
    } else {
        format!("\"{}\"", escaped(text, false))
    }
}

/// A list of strings on one line.
pub(crate) fn inline_list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn is_control(c: char) -> bool {
    c < ' ' || c == '\x7f'
}

fn escaped(text: &str, lines: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if lines => escaped.push(c),
            '"' | '\\' => escaped.extend(['\\', c]),
            c if is_control(c) => escaped.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_text_has_its_spelling() {
        assert_eq!(quoted("std"), "\"std\"");
        assert_eq!(quoted("\"0\""), "'\"0\"'");
        assert_eq!(quoted("a\"'"), "\"a\\\"'\"");
        assert_eq!(quoted("a\nb\n"), "\"\"\"\na\nb\n\"\"\"");
        assert_eq!(quoted("\r"), "\"\\u000D\"");
        assert_eq!(key("opt_level"), "opt_level");
        assert_eq!(key("a b"), "\"a b\"");
    }

    proptest! {
        #[test]
        fn toml_reads_what_is_printed(name in ".{0,8}", value in "(\\PC|[\\x00-\\x20\\x7f\"'\\\\]){0,24}") {
            let text = format!("{} = {}\n", key(&name), quoted(&value));
            let table: toml::Table = toml::from_str(&text).unwrap();
            prop_assert_eq!(table[&name].as_str(), Some(value.as_str()));
        }
    }
}
