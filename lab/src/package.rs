//! The product's Debian package.

use crate::executables::workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the file.
pub const FILE: &str = "colinux.deb";

/// What runs when the package comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/colinux"),
    ("zsh", "usr/share/zsh/vendor-completions/_colinux"),
    ("fish", "usr/share/fish/vendor_completions.d/colinux.fish"),
];
const DOCUMENTS: [&str; 4] = ["README.md", "CAVEATS.md", "CHANGELOG.md", "docs"];

/// Makes the package of the executable `colinux`, in the same folder.
pub fn build(colinux: &Path) -> Result<PathBuf> {
    let output = colinux.with_file_name(FILE);
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    // Created for its owner alone; in the package it is the root.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    fill(root, colinux)?;
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "-z1", "--build"])
        .arg(root)
        .arg(&output))?;
    Ok(output)
}

fn fill(root: &Path, colinux: &Path) -> Result<()> {
    let place = |path: &str| -> Result<PathBuf> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        Ok(path)
    };
    fs::copy(colinux, place("usr/bin/colinux")?)?;
    fs::create_dir_all(root.join("etc/colinux"))?;
    let man = place("usr/share/man/man1")?;
    run(Command::new(colinux).arg("man").arg(&man))?;
    run(Command::new("gzip").args(["-9n", "-r"]).arg(&man))?;
    let units = place("usr/lib/systemd/system/units")?.with_file_name("");
    run(Command::new(colinux)
        .args(["service", "install", "--executable", "/usr/bin/colinux", "--folder"])
        .arg(units))?;
    for (shell, path) in COMPLETIONS {
        fs::write(place(path)?, run(Command::new(colinux).args(["completions", shell]))?)?;
    }
    let sources = workspace()?;
    let documents = place("usr/share/doc/colinux/README.md")?.with_file_name("");
    for name in DOCUMENTS {
        run(Command::new("cp").arg("-r").arg(sources.join(name)).arg(&documents))?;
    }
    fs::copy(sources.join("LICENSES/GPL-2.0-only.txt"), documents.join("copyright"))?;
    for name in SCRIPTS {
        let path = place(&format!("DEBIAN/{name}"))?;
        fs::copy(sources.join("user/cli/package").join(name), &path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(root.join("DEBIAN/control"), control())?;
    Ok(())
}

fn control() -> String {
    format!(
        "Package: colinux\nVersion: {}\nArchitecture: amd64\nSection: admin\nPriority: optional\n\
         Maintainer: The coLinux project <colinux@localhost>\nDepends: passwd\n\
         Recommends: e2fsprogs, mmdebstrap, passt, qemu-system-common, uidmap\n\
         Description: second Linux kernel beside the one that runs, in ring 0\n \
         Runs the stock kernel of a distribution as a guest without VT-x or SVM. The driver is made\n \
         for the running kernel when it is loaded; no headers and no compiler are needed.\n \
         A guest is trusted as a kernel module is: read CAVEATS.md.\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Runs a command that must succeed, and returns what it prints.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("{} cannot be started", program.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {stderr}", program.display());
    Ok(output.stdout)
}
