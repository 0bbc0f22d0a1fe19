//! `colinux run`.

use crate::{
    config::{Config, ConfigError},
    status::{Failure, Status},
};
use colinux_loader::{Disk, Guest, ImageError, Initrd, LoadError, command_line};
use colinux_objects::GUEST_OBJECT;
use colinux_vmm::{DiskOptions, End, Options};
use std::{fs, path::Path};

/// What the guest calls its first disk.
const FIRST_DISK: &str = "/dev/vda";

/// Runs the guest that `words` describe; `append` goes to its kernel.
pub fn run(words: &[String], append: Vec<String>) -> Result<Status, Failure> {
    let mut config = Config::from_words(words)?;
    config.append.extend(append);
    let disks = config.disks.iter().map(|(number, disk)| DiskOptions {
        name: format!("cobd{number}"),
        path: disk.path.clone(),
        read_only: disk.read_only,
    });
    let options = Options { memory: config.memory, vcpus: config.cpus, disks: disks.collect() };
    check_files(&config)?;
    let end = colinux_vmm::run(&options, &|| guest(&config))?;
    match &end {
        // As the driver reports faults (`Fault` in core/monitor).
        End::Failed { reason: u64::MAX, detail } => {
            eprintln!("colinux: the guest changed its paging mode and was ended (CR4 {detail:#x})");
        }
        End::Failed { reason, detail } => {
            eprintln!(
                "colinux: the guest made the call {reason:#x} that does not exist or has a bad argument ({detail:#x}) and was ended"
            );
        }
        End::Stopped => eprintln!("colinux: the guest was stopped"),
        _ => {}
    }
    Ok(Status::from(&end))
}

/// Says early what is missing, before the driver is asked for anything.
fn check_files(config: &Config) -> Result<(), ConfigError> {
    let disks = config.disks.values().map(|disk| &disk.path);
    for path in disks.chain(&config.kernel).chain(&config.initrd) {
        fs::File::open(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    }
    Ok(())
}

/// Makes the guest, from the image or from what was given in its place.
fn guest(config: &Config) -> Result<Guest, LoadError> {
    let disk = config.disks.first_key_value().map(|(_, disk)| disk.path.as_path());
    let initrd = config.initrd.as_deref().map(file_initrd).transpose()?;
    if let Some(path) = &config.kernel {
        // The root is where the image says; an image without a readable file system is the user's own choice.
        let root = disk.and_then(|disk| Disk::open(disk).ok()).map(|disk| disk.root_device(FIRST_DISK));
        let line = command_line(root.as_deref().unwrap_or(FIRST_DISK), &config.append);
        let bytes = fs::read(path).map_err(|source| ImageError::Io { path: path.clone(), source })?;
        return Guest::new(&path.display().to_string(), bytes, GUEST_OBJECT, initrd, line);
    }
    let path = disk.unwrap_or(Path::new(""));
    let disk = Disk::open(path)?;
    let files = disk.kernel()?;
    let line = command_line(&disk.root_device(FIRST_DISK), &config.append);
    let name = format!("{} of {}", files.name, path.display());
    Guest::new(&name, files.kernel, GUEST_OBJECT, initrd.or(files.initrd), line)
}

fn file_initrd(path: &Path) -> Result<Initrd, ImageError> {
    let error = |source| ImageError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(error)?;
    let len = file.metadata().map_err(error)?.len();
    Ok(Initrd { len, reader: Box::new(file) })
}
