//! The executables of this project that go into the lab's host: linked statically, so that they run in any.

use crate::package;
use crate::progress::{Step, tail};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the executables are.
#[derive(Clone, Debug)]
pub struct Executables {
    /// The lab's agent.
    pub agent: PathBuf,
    /// The product.
    pub colinux: PathBuf,
    /// The tests' tool that checks registers and measures kernels, in either world.
    pub probe: PathBuf,
    /// The tests' tool that runs hand-made guests through the driver.
    pub drive: PathBuf,
    /// The product as a Debian package.
    pub package: PathBuf,
}

/// The executables as `COLINUX_EXECUTABLES` (a folder) has them, else built now.
pub fn get() -> Result<Executables> {
    let dir = match std::env::var_os("COLINUX_EXECUTABLES") {
        Some(dir) => PathBuf::from(dir),
        None => build()?,
    };
    Ok(Executables {
        agent: dir.join("lab-agent"),
        colinux: dir.join("colinux"),
        probe: dir.join("colinux-probe"),
        drive: dir.join("drive"),
        package: dir.join(package::FILE),
    })
}

/// Builds the executables and returns the folder that has them.
pub fn build() -> Result<PathBuf> {
    let root = workspace()?;
    let _step = Step::passing("building colinux");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "--target", TARGET, "--package", "colinux", "--bin", "colinux"])
        .args(["--package", "colinux-lab", "--bin", "lab-agent", "--package", "colinux-probe"])
        .args(["--bin", "colinux-probe", "--package", "colinux-drive", "--bin", "drive"])
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", rust_flags(root))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("building colinux failed:\n{}", tail(&String::from_utf8_lossy(&output.stderr)));
    }
    let folder = target()?.join(TARGET).join("release");
    package::build(&folder.join("colinux"))?;
    Ok(folder)
}

/// Cargo's target folder.
pub fn target() -> Result<PathBuf> {
    let root = workspace()?;
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |d| root.join(d)))
}

/// The top of the source tree.
pub fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the lab's crate is not in a workspace")
}

/// Static, and without the paths of the computer that built it.
fn rust_flags(root: &Path) -> String {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|h| h + "/.cargo"));
    let mut flags = format!("-Ctarget-feature=+crt-static --remap-path-prefix={}=colinux", root.display());
    if let Ok(home) = home {
        flags += &format!(" --remap-path-prefix={home}=cargo");
    }
    flags
}
