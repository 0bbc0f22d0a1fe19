//! `colinux run`.

use crate::{
    cache,
    check::faults,
    config::Config,
    desktop::Beside,
    extra, host,
    programs::Programs,
    start::StartError,
    status::{Failure, Status},
};
use colinux_agent::{TOKEN_LEN, Token};
use colinux_control::Claim;
use colinux_image::{ImageError as MakeError, read_kernel};
use colinux_loader::{Disk, Guest, ImageError, Initrd, LoadError, Medium, command_line};
use colinux_objects::GUEST_OBJECT;
use colinux_vmm::{
    DiskOptions, End, FolderOptions, Name, NetOptions, Options, SerialOptions, Signals, guard, tell,
};
use kbind_resolve::ImageError as ParseError;
use rustix::rand::{GetRandomFlags, getrandom};
use std::{cell::Cell, fs, io, path::Path, process::exit, sync::Arc};
use tracing::{debug, warn};

/// What the guest calls its first disk.
const FIRST_DISK: &str = "/dev/vda";

/// Runs the guest that `words` describe; `append` goes to its kernel.
pub fn run(words: &[String], append: Vec<String>) -> Result<Status, Failure> {
    run_in(words, append, false, &|_| {})
}

/// As [`run`], with or without a terminal; `started` is called when the guest starts.
pub fn run_in(
    words: &[String],
    append: Vec<String>,
    background: bool,
    started: &dyn Fn(&Claim),
) -> Result<Status, Failure> {
    // First, so that nothing that is started later can be ended by one.
    let signals = Signals::catch()?;
    let mut config = Config::from_words(words)?;
    config.make_absolute().map_err(StartError::Process)?;
    config.append.extend(append);
    config.notes.iter().for_each(|note| warn!("{note}"));
    let token = token()?;
    let options = options(&config, background, &token);
    // Before the driver is asked for anything.
    faults(&config, &options).into_iter().next().map_or(Ok(()), Err)?;
    let desktop = Beside::wanted(&config)?;
    let beside = Cell::new(None);
    let _programs = Programs::start(&config, background);
    guard(|why| {
        tell(why);
        exit(Status::BrokenOut as i32)
    })?;
    let end = colinux_vmm::run(
        &options,
        signals,
        &|disk, sockets| guest(&config, disk, sockets.then_some(&token)),
        &|claim| {
            started(claim);
            beside.set(Some(Beside::start(claim.name(), &desktop)));
        },
    )?;
    drop(beside);
    match &end {
        End::Paging { cr3, cr4 } => tell(format_args!(
            "the guest changed its paging mode or has no page table, and was ended (CR3 {cr3:#x}, CR4 {cr4:#x})"
        )),
        End::Failed { reason, detail } => {
            tell(format_args!(
                "the guest left for the reason {reason:#x}, which does not exist or has a bad argument ({detail:#x}), and was ended"
            ));
        }
        End::Stopped => tell("the guest was stopped"),
        _ => {}
    }
    Ok(Status::from(&end))
}

/// A token for the guest's agent.
fn token() -> Result<Token, StartError> {
    let mut token = [0; TOKEN_LEN];
    let filled = getrandom(&mut token, GetRandomFlags::empty()).map_err(io::Error::from)?;
    // getrandom(2) fills up to 256 bytes at once.
    if filled == TOKEN_LEN {
        Ok(Token(token))
    } else {
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }
}

/// What the VM of `config` consists of.
pub fn options(config: &Config, background: bool, token: &Token) -> Options {
    let disks = config
        .disks
        .iter()
        .map(|(number, disk)| DiskOptions { name: format!("cobd{number}"), image: disk.clone() });
    let serials = config.serials.iter().map(|(number, endpoint)| SerialOptions {
        name: format!("ttys{number}"),
        endpoint: endpoint.clone(),
    });
    let nets = config.nets.iter().map(|(number, net)| NetOptions {
        number: *number,
        mac: net.mac,
        network: net.network.clone(),
        vhost: net.vhost,
    });
    let folders = config.folders.iter().map(|(number, folder)| FolderOptions {
        name: format!("cofs{number}"),
        path: folder.path.clone(),
        read_only: folder.read_only,
        tag: folder.tag.clone(),
    });
    let word = config.name.clone().unwrap_or_else(|| config.fallback_name.clone());
    Options {
        name: Name { word, exact: config.name.is_some() },
        background,
        log: config.log.clone(),
        memory: config.memory,
        vcpus: config.cpus,
        halt_poll: config.halt_poll.unwrap_or_else(|| host::halt_poll(Path::new(host::SUPPLIES))),
        serials: serials.collect(),
        disks: disks.collect(),
        nets: nets.collect(),
        vsock: config.vsock,
        token: token.digits(),
        folders: folders.collect(),
    }
}

/// Makes the guest, from the image or from what was given in its place.
fn guest(
    config: &Config,
    medium: Option<Arc<dyn Medium>>,
    token: Option<&Token>,
) -> Result<Guest, LoadError> {
    let path = config.disks.first_key_value().map_or(Path::new(""), |(_, disk)| disk.path.as_path());
    let disk = medium.map(|medium| Disk::read(path, medium)).transpose();
    let initrd = config.initrd.as_deref().map(file_initrd).transpose()?;
    if let Some(path) = &config.kernel {
        // The root is where the image says; an image without a readable file system is the user's own choice.
        let root = disk.ok().flatten().map(|disk| root(&disk, &config.append)).transpose()?;
        let line = command_line(root.as_deref().unwrap_or(FIRST_DISK), &config.append);
        let bytes = read_kernel(path).map_err(|error| match error {
            MakeError::Read { path, source } => ImageError::Io { path, source }.into(),
            error => LoadError::Package(Box::new(error)),
        })?;
        return join(&path.display().to_string(), bytes, with_extra(initrd, config, token)?, line);
    }
    let Some(disk) = disk? else { return Err(ImageError::NoKernel(path.to_owned()).into()) };
    let files = disk.kernel()?;
    debug!("boot: read the kernel");
    let line = command_line(&root(&disk, &config.append)?, &config.append);
    let name = format!("{} of {}", files.name, path.display());
    join(&name, files.kernel, with_extra(initrd.or(files.initrd), config, token)?, line)
}

/// The root as the image has it. Who names one needs none that can be found.
fn root(disk: &Disk, words: &[String]) -> Result<String, ImageError> {
    if words.iter().any(|word| word.starts_with("root=")) {
        return Ok(FIRST_DISK.to_owned());
    }
    disk.root_device(FIRST_DISK)
}

/// Joins the kernel `bytes`, called `name` in messages, with the guest object.
fn join(name: &str, bytes: Vec<u8>, initrd: Option<Initrd>, line: String) -> Result<Guest, LoadError> {
    let unfit = |source: ParseError| LoadError::Kernel { name: name.to_owned(), source: source.into() };
    let image = cache::kernels().parse(bytes).map_err(unfit)?;
    debug!("boot: read its symbols and types");
    let guest = Guest::new(name, image, GUEST_OBJECT, initrd, line)?;
    debug!("boot: joined it with the guest object");
    Ok(guest)
}

/// Adds to the initrd the agent, what mounts folders, and a word about disks.
fn with_extra(
    initrd: Option<Initrd>,
    config: &Config,
    token: Option<&Token>,
) -> Result<Option<Initrd>, LoadError> {
    let files = extra::files(!config.disks.is_empty(), config.folders.values(), token);
    match initrd {
        Some(initrd) if !files.is_empty() => initrd.with_files(&files).map(Some),
        initrd => {
            if config.folders.values().any(|folder| folder.mount.is_some()) {
                warn!("the guest has no initrd, so it does not mount folders by itself");
            }
            Ok(initrd)
        }
    }
}

fn file_initrd(path: &Path) -> Result<Initrd, ImageError> {
    let error = |source| ImageError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(error)?;
    let len = file.metadata().map_err(error)?.len();
    Ok(Initrd { len, reader: Box::new(file) })
}
