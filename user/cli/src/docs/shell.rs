//! Words of a shell's line, as far as documentation uses them.

/// The commands of a line, each as its words. What a shell would put in for `$(...)` stays as it is; redirections are left out.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let (mut word, mut is_word) = (String::new(), false);
    let mut skip = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                is_word = true;
                word.extend(chars.by_ref().take_while(|next| *next != c));
            }
            '$' if chars.peek() == Some(&'(') => {
                is_word = true;
                word.push(c);
                substitution(&mut chars, &mut word);
            }
            '#' if !is_word => break,
            ' ' | '\t' | '|' | '&' | ';' | '<' | '>' => {
                if is_word && !std::mem::take(&mut skip) {
                    found.last_mut().expect("one at least").push(std::mem::take(&mut word));
                }
                word.clear();
                is_word = false;
                match c {
                    '|' | '&' | ';' => found.push(Vec::new()),
                    '<' | '>' => skip = true,
                    _ => {}
                }
            }
            _ => {
                is_word = true;
                word.push(c);
            }
        }
    }
    if is_word && !skip {
        found.last_mut().expect("one at least").push(word);
    }
    found.retain(|words| !words.is_empty());
    found
}

/// Takes `(...)` with what is in it.
fn substitution(chars: &mut impl Iterator<Item = char>, word: &mut String) {
    let mut depth = 0;
    for c in chars {
        word.push(c);
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[test]
fn lines_are_split_as_a_shell_does() {
    for (line, expected) in [
        ("a b  # c", vec![vec!["a", "b"]]),
        ("a 'b c' \"\" d#", vec![vec!["a", "b c", "", "d#"]]),
        ("a && b; c | d &", vec![vec!["a"], vec!["b"], vec!["c"], vec!["d"]]),
        ("a > b c < d", vec![vec!["a", "c"]]),
        ("a $(b | c $(d)) e", vec![vec!["a", "$(b | c $(d))", "e"]]),
        ("# all", vec![]),
    ] {
        assert_eq!(commands(line), expected, "{line}");
    }
}
