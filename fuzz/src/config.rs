//! Settings: words of the command line and files.

#[path = "../../user/cli/src/config/mod.rs"]
#[allow(dead_code, unused_imports)]
pub(crate) mod config;

use config::Config;
use std::fs;

fn words_of(text: &str) -> Vec<String> {
    // Other files than those of this test stay out.
    text.split_whitespace().filter(|word| !word.contains(['@', '/'])).map(str::to_owned).collect()
}

/// Words, and a file of them.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = Config::from_words(&words_of(&text));
    read("config", &words_of(&text).join("\n"));
}

/// A file with names.
pub fn named(data: &[u8]) {
    read("config.toml", &String::from_utf8_lossy(data));
}

/// What is understood can be said in both ways, and means the same.
fn read(name: &str, text: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a temporary file");
    if let Ok(config) = Config::from_words(&[format!("@{}", path.display())]) {
        for (end, text) in config.texts() {
            let again = folder.path().join(format!("again.{end}"));
            fs::write(&again, &text).expect("a temporary file");
            let read = Config::from_words(&[format!("@{}", again.display())]);
            assert!(read.is_ok(), "{text}");
        }
    }
}
