//! What is in an image.

use crate::{Distribution, ImageError, System};
use std::path::PathBuf;

/// The smallest system that a person can work in: a login on the console, the network by DHCP, and the package manager.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "udev",
    "login",
    "dbus",
    "libpam-systemd",
    "apt",
    "ca-certificates",
    "iproute2",
    "iputils-ping",
    "procps",
    "kmod",
    "e2fsprogs",
    "zstd",
    "less",
    "vim-tiny",
    "ifupdown",
    "isc-dhcp-client",
];
/// Options of mke2fs; nothing is left to be done when the guest mounts it.
const FILE_SYSTEM: [&str; 2] = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];
/// What ends a file in a script; no file has such a line.
const END: &str = "COLINUX-END-OF-FILE";

/// Where users have their folders.
const HOMES: &str = "/home";

const INTERFACES: &str = "\
# interfaces(5): the first network device gets its address by DHCP, whenever it is there.
auto lo
iface lo inet loopback

allow-hotplug eth0
iface eth0 inet dhcp
";

/// A file in an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIn {
    /// Where it is.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// What is in it: lines of text.
    pub contents: String,
}

/// A Debian or Ubuntu system: what is in the image beside the smallest one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// Whose packages these are.
    pub distribution: Distribution,
    /// The release: `bookworm`, `trixie`, `stable`; `noble`.
    pub suite: String,
    /// Where packages come from instead of the distribution's own archive: a URL.
    pub mirror: Option<String>,
    /// The file with the keys of that archive instead of the system's own.
    pub keyring: Option<PathBuf>,
    /// The kernel's package.
    pub kernel: String,
    /// Packages beside those that are always there.
    pub packages: Vec<String>,
    /// Name of the machine.
    pub hostname: String,
    /// A user who may become root by sudo. Neither has a password: who holds the console is the owner.
    pub user: Option<String>,
    /// Keys with which root, and the user, may log in by SSH, as in an `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// Files that are written last.
    pub files: Vec<FileIn>,
    /// Bytes of the disk.
    pub size: u64,
}

impl Recipe {
    /// `distribution` as it is by default, on a disk of `size` bytes; `suite` is another release than the one that is usual here.
    pub fn new(distribution: Distribution, suite: Option<&str>, size: u64) -> Self {
        Self {
            distribution,
            suite: suite.unwrap_or(distribution.suite()).to_owned(),
            mirror: None,
            keyring: None,
            kernel: distribution.kernel().to_owned(),
            packages: Vec::new(),
            hostname: distribution.name().to_owned(),
            user: None,
            ssh_keys: Vec::new(),
            files: Vec::new(),
            size,
        }
    }

    /// Debian `suite` with its own kernel, on a disk of `size` bytes.
    pub fn debian(suite: &str, size: u64) -> Self {
        Self::new(Distribution::Debian, Some(suite), size)
    }

    /// What mmdebstrap and mke2fs have to do.
    ///
    /// # Errors
    /// [`ImageError::Word`].
    pub fn system(&self) -> Result<System, ImageError> {
        self.check()?;
        let source =
            self.distribution.source(&self.suite, self.mirror.as_deref(), self.keyring.as_deref())?;
        let mut packages: Vec<_> = PACKAGES.iter().copied().chain([self.kernel.as_str()]).collect();
        packages.extend(self.distribution.packages());
        packages.extend(self.packages.iter().map(String::as_str));
        packages.extend(self.user.iter().map(|_| "sudo"));
        packages.extend((!self.ssh_keys.is_empty()).then_some("openssh-server"));
        let user = self.user.iter().map(|user| user_script(user));
        let files = self.all_files();
        let files = files.iter().map(file_script);
        let keys = self.user.iter().filter(|_| !self.ssh_keys.is_empty());
        let keys = keys.map(|user| format!("chroot \"$1\" chown -R {user}: {HOMES}/{user}/.ssh"));
        let plain = [SETTINGS, TIDY].map(str::to_owned);
        Ok(System {
            source,
            packages: packages.join(","),
            scripts: plain.into_iter().chain(user).chain(files).chain(keys).collect(),
            file_system: ["-L", &*self.label()].into_iter().chain(FILE_SYSTEM).map(str::to_owned).collect(),
            size: self.size,
        })
    }

    /// Of the root file system.
    fn label(&self) -> String {
        format!("{}-root", self.distribution.name())
    }

    fn all_files(&self) -> Vec<FileIn> {
        let file = |path: &str, mode, contents: String| FileIn { path: path.to_owned(), mode, contents };
        let host = &self.hostname;
        let mut files = vec![
            file("/etc/hostname", 0o644, format!("{host}\n")),
            file("/etc/hosts", 0o644, format!("127.0.0.1 localhost\n127.0.1.1 {host}\n")),
            file(
                "/etc/fstab",
                0o644,
                format!("LABEL={} / ext4 rw,errors=remount-ro,x-systemd.growfs 0 1\n", self.label()),
            ),
            file("/etc/network/interfaces", 0o644, INTERFACES.to_owned()),
        ];
        if !self.ssh_keys.is_empty() {
            let homes = std::iter::once("/root".to_owned())
                .chain(self.user.iter().map(|user| format!("{HOMES}/{user}")));
            let keys = format!("{}\n", self.ssh_keys.join("\n"));
            files
                .extend(homes.map(|home| file(&format!("{home}/.ssh/authorized_keys"), 0o600, keys.clone())));
        }
        files.extend(self.files.iter().cloned());
        files
    }

    /// The words become part of scripts, so they are plain.
    fn check(&self) -> Result<(), ImageError> {
        const PLAIN: &str =
            "it has small letters, digits, `-`, `+` and `.`, and begins with a letter or digit";
        let packages = std::iter::once(&self.kernel).chain(&self.packages).map(|word| ("package", word));
        let names = [("release", &self.suite), ("host name", &self.hostname)];
        for (what, word) in
            names.into_iter().chain(self.user.iter().map(|user| ("user", user))).chain(packages)
        {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-+.".contains(c);
            if !word.chars().all(good) || !word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return Err(ImageError::Word { word: word.clone(), what, wanted: PLAIN });
            }
        }
        for key in &self.ssh_keys {
            if key.split_whitespace().count() < 2 || key.contains(['\n', '\0']) {
                let (word, what) = (key.clone(), "SSH key");
                return Err(ImageError::Word { word, what, wanted: "it is a line `TYPE KEY [COMMENT]`" });
            }
        }
        Ok(())
    }
}

/// Root logs in on the console without a password: it is in the hand of who runs the guest. SSH takes no empty password.
const SETTINGS: &str = r#"chroot "$1" passwd -q -d root
chroot "$1" systemd-machine-id-setup"#;

const TIDY: &str = r#"rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin"#;

fn user_script(user: &str) -> String {
    format!(
        "chroot \"$1\" useradd --create-home --shell /bin/bash --groups sudo {user}\nchroot \"$1\" passwd -q -d {user}\n\
         echo '{user} ALL=(ALL) NOPASSWD: ALL' > \"$1/etc/sudoers.d/{user}\"\nchmod 440 \"$1/etc/sudoers.d/{user}\""
    )
}

fn file_script(FileIn { path, mode, contents }: &FileIn) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!(
        "install -d \"$1{folder}\"\ncat > \"$1{path}\" <<'{END}'\n{contents}{END}\nchmod {mode:o} \"$1{path}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(recipe: &Recipe) -> String {
        let system = recipe.system().unwrap();
        format!("{} {}", system.packages, system.scripts.join("\n"))
    }

    #[test]
    fn what_is_asked_for_is_in_the_image() {
        let mut recipe = Recipe::debian("bookworm", 1 << 30);
        let plain = script(&recipe);
        assert!(plain.contains("linux-image-amd64") && !plain.contains("openssh-server"));
        recipe.packages.push("nginx".to_owned());
        recipe.user = Some("ann".to_owned());
        recipe.ssh_keys.push("ssh-ed25519 AAAA ann@home".to_owned());
        let text = script(&recipe);
        for part in [
            "nginx",
            "openssh-server",
            "sudo",
            "useradd",
            "/ann/.ssh/authorized_keys",
            "ssh-ed25519 AAAA ann@home",
        ] {
            assert!(text.contains(part), "{part} is missing");
        }
    }

    #[test]
    fn words_that_would_break_a_script_are_refused() {
        let refused = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = Recipe::debian("bookworm", 1 << 30);
            change(&mut recipe);
            matches!(recipe.system(), Err(ImageError::Word { .. }))
        };
        assert!(refused(&|recipe| recipe.suite = "x y".to_owned()));
        assert!(refused(&|recipe| recipe.suite = "-x".to_owned()));
        assert!(refused(&|recipe| recipe.hostname = String::new()));
        assert!(refused(&|recipe| recipe.user = Some("a;b".to_owned())));
        assert!(refused(&|recipe| recipe.packages.push("$(x)".to_owned())));
        assert!(refused(&|recipe| recipe.ssh_keys.push("nokey".to_owned())));
        assert!(refused(&|recipe| recipe.ssh_keys.push(format!("a b\n{END}"))));
        assert!(!refused(&|_| {}));
    }
}
