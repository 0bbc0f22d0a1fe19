//! Distributions whose packages mmdebstrap can fetch, and where these come from.

use crate::ImageError;
use std::path::{Path, PathBuf};

/// Whose packages are in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

/// What is different between distributions.
struct Facts {
    name: &'static str,
    /// The release that is usual here.
    suite: &'static str,
    /// The package of its kernel.
    kernel: &'static str,
    /// What the smallest system needs beside the common packages.
    packages: &'static [&'static str],
    archive: &'static str,
    /// Parts of the archive with these packages.
    components: &'static str,
    /// Suites beside the release itself, by what follows its name.
    updates: &'static [&'static str],
    keyring: &'static str,
}

const DEBIAN: Facts = Facts {
    name: "debian",
    suite: "bookworm",
    kernel: "linux-image-amd64",
    packages: &[],
    archive: "http://deb.debian.org/debian",
    components: "main",
    updates: &[],
    keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
};

const UBUNTU: Facts = Facts {
    name: "ubuntu",
    suite: "noble",
    // Without the drivers of real machines, which are in `linux-image-generic`.
    kernel: "linux-image-virtual",
    // Debian's kernels depend on it, Ubuntu's recommend it.
    packages: &["initramfs-tools"],
    archive: "http://archive.ubuntu.com/ubuntu",
    components: "main universe",
    updates: &["-updates", "-security"],
    keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
};

impl Distribution {
    /// The distribution of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Debian, Self::Ubuntu].into_iter().find(|one| one.name() == name)
    }

    const fn facts(self) -> &'static Facts {
        match self {
            Self::Debian => &DEBIAN,
            Self::Ubuntu => &UBUNTU,
        }
    }

    /// `debian`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    pub(crate) const fn suite(self) -> &'static str {
        self.facts().suite
    }

    pub(crate) const fn kernel(self) -> &'static str {
        self.facts().kernel
    }

    pub(crate) const fn packages(self) -> &'static [&'static str] {
        self.facts().packages
    }

    /// Where mmdebstrap finds `suite`: its name, where mmdebstrap knows what belongs to it, or lines of a sources.list(5).
    ///
    /// # Errors
    /// The archive's keys are not there, or a word does not fit into such a line.
    pub(crate) fn source(
        self,
        suite: &str,
        mirror: Option<&str>,
        keyring: Option<&Path>,
    ) -> Result<String, ImageError> {
        let facts = self.facts();
        if self == Self::Debian && mirror.is_none() && keyring.is_none() {
            return Ok(suite.to_owned());
        }
        let keyring = keyring.map_or_else(|| PathBuf::from(facts.keyring), Path::to_owned);
        if !keyring.is_file() {
            return Err(ImageError::NoKeys { distribution: facts.name, path: keyring });
        }
        let keyring =
            fs_word(&keyring).ok_or_else(|| word("file of keys", &keyring.display().to_string()))?;
        let mirror = mirror.unwrap_or(facts.archive);
        if !mirror.contains("://") || mirror.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(word("mirror", mirror));
        }
        let line = |update: &&str| {
            format!("deb [signed-by={keyring}] {mirror} {suite}{update} {}", facts.components)
        };
        let lines: Vec<_> = [""].iter().chain(facts.updates).map(line).collect();
        Ok(lines.join("\n"))
    }
}

/// The absolute path as a word of a sources.list.
fn fs_word(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?.into_os_string().into_string().ok()?;
    (!path.contains(|c: char| c.is_whitespace() || c == ']' || c == ',')).then_some(path)
}

fn word(what: &'static str, word: &str) -> ImageError {
    const WANTED: &str =
        "it is one word without spaces; a mirror is a URL such as http://archive.ubuntu.com/ubuntu";
    ImageError::Word { word: word.to_owned(), what, wanted: WANTED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_known_to_mmdebstrap_by_its_release() {
        assert_eq!(Distribution::Debian.source("trixie", None, None).unwrap(), "trixie");
    }

    #[test]
    fn an_archive_is_named_with_its_keys_and_updates() {
        let keys = tempfile::NamedTempFile::new().unwrap();
        let path = keys.path().display();
        let ubuntu = |mirror| Distribution::Ubuntu.source("noble", mirror, Some(keys.path()));
        assert_eq!(
            ubuntu(Some("http://mirror/u")).unwrap(),
            format!(
                "deb [signed-by={path}] http://mirror/u noble main universe\n\
                 deb [signed-by={path}] http://mirror/u noble-updates main universe\n\
                 deb [signed-by={path}] http://mirror/u noble-security main universe"
            )
        );
        assert!(ubuntu(None).unwrap().contains("] http://archive.ubuntu.com/ubuntu noble main"));
        let debian = Distribution::Debian.source("bookworm", Some("http://m/d"), Some(keys.path())).unwrap();
        assert_eq!(debian, format!("deb [signed-by={path}] http://m/d bookworm main"));
        for bad in ["mirror", "http://a b", "http://a\ndeb http://b"] {
            assert!(matches!(ubuntu(Some(bad)), Err(ImageError::Word { what: "mirror", .. })), "{bad}");
        }
    }

    #[test]
    fn keys_that_are_not_there_are_missed_before_anything_is_fetched() {
        let missing = Distribution::Ubuntu.source("noble", None, Some(Path::new("/no/such.gpg")));
        let said = missing.unwrap_err().to_string();
        assert!(said.contains("/no/such.gpg") && said.contains("ubuntu-keyring"), "{said}");
    }
}
