//! Words for the guest's kernel, which keeps together what `"` is around (Linux, lib/cmdline.c, `next_arg`).

/// The words of `text`, with their quotes, as the kernel tells them apart.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut is_quoted = false;
    let words = text.split(|c: char| {
        is_quoted ^= c == '"';
        c.is_whitespace() && !is_quoted
    });
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `word` as one word of the kernel, whatever spaces are in it.
pub(super) fn quoted(word: &str) -> String {
    if !word.contains(char::is_whitespace) || word.contains('"') { word.to_owned() } else { enclosed(word) }
}

/// `word` with quotes around its value, or around all of it.
pub(super) fn enclosed(word: &str) -> String {
    match word.split_once('=') {
        Some((key, value)) => format!("{key}=\"{value}\""),
        None => format!("\"{word}\""),
    }
}

/// The value of `word` if `key` is its name, without the quotes that [`quoted`] puts around it.
pub(super) fn value<'a>(key: &str, word: &'a str) -> Option<&'a str> {
    let value = word.strip_prefix(key)?.strip_prefix('=')?;
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(inside.filter(|inside| quoted(&format!("{key}={inside}")) == word).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_together_what_has_spaces() {
        for (text, expected) in [
            ("", &[][..]),
            (" a  b=c ", &["a", "b=c"]),
            ("dyndbg=\"file a.c  +p\" quiet", &["dyndbg=\"file a.c  +p\"", "quiet"]),
            ("\"a b\" c\"d e", &["\"a b\"", "c\"d e"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        for (word, expected) in [("a=b", "a=b"), ("a=b c", "a=\"b c\""), ("a b", "\"a b\"")] {
            assert_eq!(quoted(word), expected);
            assert_eq!(quoted(expected), expected);
            assert_eq!(words(expected), [expected]);
        }
        assert_eq!(value("root", "root=\"LABEL=a b\""), Some("LABEL=a b"));
        assert_eq!(value("root", "root=\"/dev/vda\""), Some("\"/dev/vda\""));
        assert_eq!(value("root", "rootwait"), None);
    }
}
