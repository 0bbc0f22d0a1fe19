//! What probes print, side by side.

use anyhow::{Context, Result};
use std::fmt::Write;

/// A benchmark's name and its result in nanoseconds.
pub type Results = Vec<(String, f64)>;

/// The lines of `text` with a name and a number; others are a console's.
pub fn parse(text: &str) -> Results {
    let line = |line: &str| -> Option<(String, f64)> {
        let (name, value) = line.trim().split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// A table with a row for each result of the first column, and each further column's ratio to it.
pub fn table(unit: &str, columns: &[(&str, Results)]) -> Result<String> {
    let (first, others) = columns.split_first().context("nothing was measured")?;
    let mut text = format!("{unit:<20} {:>14}", first.0);
    for (name, _) in others {
        write!(text, " {name:>14} {:>8}", "ratio")?;
    }
    for (name, base) in &first.1 {
        write!(text, "\n{name:<20} {base:>14.0}")?;
        for (_, results) in others {
            match results.iter().find(|(n, _)| n == name) {
                Some((_, value)) => write!(text, " {value:>14.0} {:>8.3}", value / base)?,
                None => write!(text, " {:>14} {:>8}", "-", "-")?,
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_set_against_the_first() {
        let host = parse("syscall 100\r\n[    0.1] a line of the console\nfork 50\n");
        let guest = parse("syscall 150\n");
        let text = table("ns", &[("host", host), ("guest", guest)]).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words,
            "ns host guest ratio syscall 100 150 1.500 fork 50 - -".split(' ').collect::<Vec<_>>()
        );
    }
}
