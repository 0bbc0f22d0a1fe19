//! Builds the kernel objects and the guest's agent, each with a cargo of its own: another target, other flags.

use object::{Object, ObjectSection, ObjectSymbol};
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the compiler or the module format brings in; the rest must be named by kbind's `imports!`.
const COMPILER_SYMBOLS: [&str; 7] =
    ["memcpy", "memset", "memmove", "memcmp", "bcmp", "__this_module", "__x86_return_thunk"];
const COMPILER_PREFIX: &str = "__x86_indirect_thunk_";

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?).join("../..");
    watch(&root)?;
    build_host(&root.join("hosts/linux"), &out)?;
    build_guest(&root.join("guest"), &out)?;
    build_agent(&root.join("user/agent"), &out)
}

fn watch(root: &Path) -> Result<()> {
    for folder in ["abi", "kbind/src", "core", "hosts/linux", "guest", "user/agent"] {
        let path = root.join(folder).canonicalize()?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?.path();
            if entry.file_name().is_none_or(|name| name != "target") {
                println!("cargo:rerun-if-changed={}", entry.display());
            }
        }
    }
    Ok(())
}

/// A cargo that does not inherit what the outer one sets for its own build.
fn cargo(folder: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        let outer = ["CARGO_", "RUSTC_", "RUSTFLAGS", "RUSTC"].iter().any(|prefix| text.starts_with(prefix));
        if outer && text != "CARGO_HOME" {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target).env("RUSTC_BOOTSTRAP", "1");
    cargo
}

fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed: {status}").into()) }
}

/// With fat LTO, the object of the one crate is the whole driver. The linker joins its sections of the same name.
fn build_host(folder: &Path, out: &Path) -> Result<()> {
    let (parts, object) = (out.join("colinux-host-parts.o"), out.join("colinux-host.o"));
    let mut cargo = cargo(folder, &out.join("host-target"));
    cargo.args(["--config", &short_paths(folder)?]);
    cargo.args(["rustc", "--release", "--lib", "--", "--emit"]);
    cargo.arg(format!("obj={}", parts.display()));
    run(cargo)?;
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "gnu", "-r"]).arg(&parts).arg("-o").arg(&object);
    run(lld)?;
    check_host(&object)
}

/// Messages about bugs name source files as the project does, whatever the place of the build.
fn short_paths(folder: &Path) -> Result<String> {
    Ok(format!("build.rustflags={:?}", remaps(folder)?))
}

fn remaps(folder: &Path) -> Result<Vec<String>> {
    let root = folder.join("../..").canonicalize()?;
    let std = sysroot()?.join("lib/rustlib/src/rust");
    let flag = |path: &Path| format!("--remap-path-prefix={}/=", path.display());
    Ok(vec![flag(&root), flag(&std)])
}

fn sysroot() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").ok_or("no RUSTC")?;
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?.stdout;
    Ok(PathBuf::from(String::from_utf8(sysroot)?.trim()))
}

/// The linker that comes with rustc.
fn linker() -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(env::var("HOST")?).join("bin/rust-lld"))
}

/// Every undefined symbol must be one that a kernel can have.
fn check_host(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let meta = file.section_by_name(".kbind.meta").ok_or("the host object has no .kbind.meta")?.data()?;
    let unknown: Vec<&str> = file
        .symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| !name.is_empty() && !is_known(name, meta))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("the host object needs symbols that no kernel has: {}", unknown.join(", ")).into())
}

fn is_known(name: &str, meta: &[u8]) -> bool {
    COMPILER_SYMBOLS.contains(&name)
        || name.starts_with(COMPILER_PREFIX)
        || meta.windows(name.len()).any(|window| window == name.as_bytes())
}

fn build_guest(folder: &Path, out: &Path) -> Result<()> {
    let target = out.join("guest-target");
    let mut cargo = cargo(folder, &target);
    cargo.args(["build", "--release"]);
    run(cargo)?;
    fs::copy(target.join("x86_64-unknown-none/release/colinux-guest"), out.join("colinux-guest.elf"))?;
    Ok(())
}

/// A static program, small because it lives in the guest's memory.
fn build_agent(folder: &Path, out: &Path) -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = out.join("agent-target");
    let mut flags = remaps(folder)?;
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| home + "/.cargo"));
    flags.extend(home.map(|home| format!("--remap-path-prefix={home}=cargo")));
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    let mut cargo = cargo(folder, &target);
    cargo.env_remove("RUSTC_BOOTSTRAP").args(["--config", &format!("build.rustflags={flags:?}")]);
    cargo.args(["build", "--locked", "--profile", "agent", "--bin", "colinux-agent", "--target", TARGET]);
    run(cargo)?;
    fs::copy(target.join(TARGET).join("agent/colinux-agent"), out.join("colinux-agent"))?;
    Ok(())
}
