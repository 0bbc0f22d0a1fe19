//! An initrd for systems that cannot make one: the modules that a guest needs, and the agent, which mounts the root and starts the system (user/agent, `boot`).

use crate::unpack;
use colinux_loader::{ExtraFile, archive};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
};

/// Modules without which there is no root.
const NEEDED: [&str; 2] = ["virtio_blk", "ext4"];
/// Modules that a guest may need before it has udev, or that it has no udev for; what a kernel does not have is left out.
const WANTED: [&str; 7] = [
    "crc32c_generic",
    "virtio_net",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "virtio_balloon",
    "virtio_console",
];

/// An initrd with the modules of the folder `modules`, which has an index (depmod(8)).
///
/// # Errors
/// A module that is needed is missing, or cannot be read.
pub(crate) fn make(modules: &Path, agent: &[u8]) -> io::Result<Vec<u8>> {
    let index = Index::read(modules)?;
    let mut order: Vec<&str> = Vec::new();
    for name in WANTED.into_iter().take(1).chain(NEEDED).chain(WANTED.into_iter().skip(1)) {
        match index.paths.get(name) {
            Some(path) => index.add(path, &mut order),
            None if NEEDED.contains(&name) && !index.builtin.iter().any(|builtin| builtin == name) => {
                return Err(io::Error::other(format!(
                    "the kernel has no module {name}, without which there is no root"
                )));
            }
            None => {}
        }
    }
    let mut files = vec![file("/init".to_owned(), 0o755, agent.to_vec())];
    for (number, path) in order.into_iter().enumerate() {
        let name = name_of(path);
        files.push(file(format!("/modules/{number:03}-{name}"), 0o644, contents(&modules.join(path))?));
    }
    archive(&files)
}

fn file(path: String, mode: u32, contents: Vec<u8>) -> ExtraFile {
    ExtraFile { path, mode, contents: Cow::Owned(contents) }
}

/// A module as the kernel takes it.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    unpack::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What modules there are, and what each needs.
struct Index {
    /// Each module's path, and before which others.
    needs: BTreeMap<String, Vec<String>>,
    paths: BTreeMap<String, String>,
    builtin: Vec<String>,
}

impl Index {
    fn read(modules: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(modules.join("modules.dep"))?;
        // Not every package has it.
        let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
        let line = |line: &str| {
            let (path, needs) = line.split_once(':')?;
            Some((path.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
        };
        let needs: BTreeMap<String, Vec<String>> = text.lines().filter_map(line).collect();
        let paths = needs.keys().map(|path| (name_of(path), path.clone())).collect();
        Ok(Self { needs, paths, builtin: builtin.lines().map(name_of).collect() })
    }

    /// Adds a module behind those that it needs; modules.dep names all of them, the nearest first.
    fn add<'a>(&'a self, path: &'a str, order: &mut Vec<&'a str>) {
        let needs = self.needs.get(path).into_iter().flatten().rev().map(String::as_str);
        for module in needs.chain([path]) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
}

/// The name of the module in the file `path`, as the kernel knows it.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}
