//! The agent as the first process of a guest whose system cannot make an initrd: `colinux image import` puts it into one as `/init`.
//!
//! It loads the modules beside it, mounts the root, and becomes the system's init. A system without one, as images of containers are, gets a shell on the
//! console, and ends with it.

mod partition;
mod root;

use crate::{PROGRAM, TERMINAL, TOKEN_FILE, install};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        reboot::{RebootMode, reboot},
        wait::wait,
    },
    unistd::{chdir, chroot, sync},
};
use root::Root;
use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::{fs::symlink, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

const MODULES: &str = "/modules";
/// What `colinux run` adds to the initrd.
const FILES: &str = "/colinux";
const UNITS: &str = "/run/systemd/system";
const ROOT: &str = "/sysroot";
/// Milliseconds in which a disk appears.
const PATIENCE: u16 = 30_000;
/// What starts a system (Linux, init/main.c), and where systemd is if nothing leads to it.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
const CONSOLES: [&str; 2] = ["/dev/hvc0", "/dev/console"];
/// Where the installed agent is.
const AGENT: &str = "/run/colinux-agent/agent";
const TOKEN: &str = "/run/colinux-agent/token";
/// For programs of a system that has no login to say so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the system; `words` are those of the kernel's command line that are for its init. Does not return: a failure ends the guest, as a panic of its kernel.
pub fn boot(words: &[String]) -> ! {
    let Err(error) = start(words);
    eprintln!("colinux: the guest cannot start: {error}");
    std::process::exit(1)
}

fn failed(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// What the kernel's command line says about the root.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    root: Option<String>,
    kind: Option<String>,
    init: Option<String>,
    read_only: bool,
}

impl Line {
    /// The last word of a kind wins.
    fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("root", value)) => line.root = Some(value.to_owned()),
                Some(("rootfstype", value)) => line.kind = Some(value.to_owned()),
                Some(("init", value)) => line.init = Some(value.to_owned()),
                None if word == "ro" || word == "rw" => line.read_only = word == "ro",
                _ => {}
            }
        }
        line
    }
}

fn start(words: &[String]) -> io::Result<Infallible> {
    let flags = MsFlags::MS_NOSUID;
    for (kind, place, options) in [
        ("devtmpfs", "/dev", ""),
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("tmpfs", "/run", "mode=0755"),
    ] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), flags, Some(options))
            .map_err(io::Error::from)
            .map_err(failed(place))?;
    }
    load_modules()?;
    let line = Line::parse(&fs::read_to_string("/proc/cmdline")?);
    mount_root(&line)?;
    let has_agent = Path::new(TOKEN_FILE).exists() && Path::new(PROGRAM).exists();
    if has_agent {
        install().map_err(failed("the agent of the host's commands"))?;
    }
    hand_on_units().map_err(failed("the folders of the host"))?;
    enter_root()?;
    let inits = line.init.iter().map(String::as_str).chain(INITS);
    match inits.into_iter().find(|init| fs::metadata(init).is_ok()) {
        Some(init) => Err(failed(init)(Command::new(init).args(words).exec())),
        None => shell(has_agent),
    }
}

/// In the order of their names. What the kernel does not take is not for it (a module for a CPU that is not here), and what is needed will be missed.
fn load_modules() -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        match rustix::system::finit_module(File::open(&name)?, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => eprintln!("colinux: {}: {error}", name.display()),
        }
        fs::remove_file(name)?;
    }
    Ok(())
}

fn mount_root(line: &Line) -> io::Result<()> {
    let root = line.root.as_deref().unwrap_or("/dev/vda");
    let device = &wait_for(&Root::parse(root)?).map_err(failed(root))?;
    fs::create_dir_all(ROOT)?;
    let flags = if line.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let kind = line.kind.as_deref().unwrap_or("ext4");
    let mounted = mount(Some(device), ROOT, Some(kind), flags, None::<&str>);
    mounted.map_err(io::Error::from).map_err(failed(&format!("{} as {kind}", device.display())))
}

/// Units that mount folders of the host, for systemd.
fn hand_on_units() -> io::Result<()> {
    let Ok(entries) = fs::read_dir(FILES) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "mount") {
            let wants = Path::new(UNITS).join("local-fs.target.wants");
            fs::create_dir_all(&wants)?;
            fs::copy(Path::new(FILES).join(&name), Path::new(UNITS).join(&name))?;
            symlink(Path::new("..").join(&name), wants.join(&name))?;
        }
    }
    Ok(())
}

/// Waits until the driver has made the device.
fn wait_for(root: &Root) -> io::Result<PathBuf> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC)?;
    watch.add_watch("/dev", AddWatchFlags::IN_CREATE)?;
    loop {
        if let Some(device) = root.find(Path::new("/sys/class/block"), Path::new("/dev")) {
            return Ok(device);
        }
        let mut waiting = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PATIENCE)? == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        watch.read_events()?;
    }
}

/// Makes the mounted root the root of everything (as switch_root(8) does).
fn enter_root() -> io::Result<()> {
    let place = Path::new(ROOT);
    let moved = |from: &str, to: &Path| mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    for name in ["dev", "proc", "sys", "run"] {
        let to = place.join(name);
        moved(&format!("/{name}"), &to)
            .map_err(io::Error::from)
            .map_err(failed(&to.display().to_string()))?;
    }
    chdir(place)?;
    moved(".", Path::new("/"))?;
    chroot(".")?;
    Ok(chdir("/")?)
}

/// Runs a shell on the console, and powers off when it ends.
fn shell(has_agent: bool) -> io::Result<Infallible> {
    let shell = SHELLS.into_iter().find(|shell| fs::metadata(shell).is_ok());
    let shell = shell.ok_or_else(|| io::Error::other("the system has neither /sbin/init nor a shell"))?;
    let console =
        CONSOLES.into_iter().find_map(|path| OpenOptions::new().read(true).write(true).open(path).ok());
    let console = console.ok_or_else(|| io::Error::other("there is no console"))?;
    if has_agent {
        // Without it the console is there still.
        let served = Command::new(AGENT).args(["serve", TOKEN]).env("PATH", PATH).spawn();
        served.map(drop).unwrap_or_else(|error| eprintln!("colinux: {AGENT}: {error}"));
    }
    println!("colinux: this system has no init: {shell} runs in its place, and `exit` powers off");
    let home = if Path::new("/root").is_dir() { "/root" } else { "/" };
    let child = Command::new("/proc/self/exe")
        .args([TERMINAL, shell, "-sh", "-i"])
        .env_clear()
        .envs([("PATH", PATH), ("HOME", home), ("TERM", "linux"), ("USER", "root")])
        .current_dir(home)
        .stdin(console.try_clone()?)
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()?;
    // The first process is the parent of all that lost theirs.
    while wait()?.pid().is_none_or(|pid| pid.as_raw() as u32 != child.id()) {}
    sync();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    // Programs that are left may write still; what is synced is on the disk.
    let _ = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
    match reboot(RebootMode::RB_POWER_OFF)? {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_the_root_wins() {
        let line = Line::parse(
            "console=hvc0 root=/dev/vda1 rw root=/dev/vdb init=/bin/sh rootfstype=btrfs ro quiet",
        );
        let expected = Line {
            root: Some("/dev/vdb".into()),
            kind: Some("btrfs".into()),
            init: Some("/bin/sh".into()),
            read_only: true,
        };
        assert_eq!(line, expected);
        assert_eq!(Line::parse("quiet"), Line::default());
    }
}
