//! `colinux`: the one program of coLinux.
#![forbid(unsafe_code)]

mod agent;
mod attach;
mod cache;
mod check;
mod config;
mod copy;
mod desktop;
#[cfg(test)]
mod docs;
mod doctor;
mod driver;
mod exec;
mod extra;
mod host;
mod image;
mod kernel;
mod metrics;
mod pages;
mod programs;
mod reader;
mod run;
mod service;
mod signals;
mod signing;
mod start;
mod status;
mod symbols;
mod vms;

use clap::{Args, Parser, Subcommand};
use colinux_control::Request;
use colinux_vmm::tell;
use status::{Failure, Status};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tracing_subscriber::{filter::LevelFilter, fmt::time::uptime};

/// Runs a second Linux kernel beside the one that owns the machine: no VT-x, no patched kernel, no compiler.
#[derive(Parser)]
#[command(version, after_help = status::HELP)]
struct Arguments {
    /// Tell more; twice: everything, with the seconds since the start
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// What a guest is made of.
#[derive(Args)]
struct Guest {
    /// What the guest writes to IMAGE is kept, also if that is a disk or partition of the host
    #[arg(long)]
    write: bool,
    /// The guest's programs show their windows on this display
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = config::AUTO, value_name = "DISPLAY")]
    x11: Option<String>,
    /// The guest's programs are heard, and hear, through this PulseAudio or PipeWire
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = config::AUTO, value_name = "SOCKET")]
    sound: Option<String>,
    /// IMAGE, CONFIG or @CONFIG, and key=value settings
    #[arg(required = true)]
    words: Vec<String>,
    /// Words for the guest's kernel command line
    #[arg(last = true)]
    append: Vec<String>,
}

impl Guest {
    /// Its words, with options as the settings that they are short for; and those of its kernel.
    fn words(self) -> (Vec<String>, Vec<String>) {
        let mut words = self.words;
        words.extend(self.write.then(|| "write=on".to_owned()));
        words.extend(self.x11.map(|display| format!("x11={display}")));
        words.extend(self.sound.map(|socket| format!("sound={socket}")));
        (words, self.append)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run a guest from a disk image; its own kernel is used
    #[command(after_help = config::HELP)]
    Run(Guest),
    /// Run a guest in the background; prints its name when it runs
    #[command(after_help = config::HELP)]
    Start(Guest),
    /// The process of `start`
    #[command(name = start::INNER, hide = true)]
    RunInBackground {
        #[arg(required = true)]
        words: Vec<String>,
        #[arg(last = true)]
        append: Vec<String>,
    },
    /// Show your guests that run
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the console of a guest and type into it; Ctrl-] d leaves it
    Attach {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
        /// Number of the console
        #[arg(long, default_value_t = 0)]
        console: u32,
        /// Only what comes from now on
        #[arg(short, long)]
        quiet: bool,
    },
    /// Run a command in a guest, as its root; without CMD root's shell
    Exec {
        /// Run it on a terminal, as large as the one here
        #[arg(short, long)]
        terminal: bool,
        /// Wait until the guest has booted
        #[arg(short, long)]
        wait: bool,
        /// Name of the guest; not needed if there is one
        name: Option<String>,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Have programs of a guest that runs show their windows here, or be heard, until it ends
    Desktop {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
        /// Windows, on this display
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = config::AUTO, value_name = "DISPLAY")]
        x11: Option<String>,
        /// Sound, through this PulseAudio or PipeWire
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = config::AUTO, value_name = "SOCKET")]
        sound: Option<String>,
    },
    /// Copy a file or folder between host and guest; one of the two is NAME:PATH
    Cp {
        /// Wait until the guest has booted
        #[arg(short, long)]
        wait: bool,
        /// What is copied
        from: String,
        /// A folder, into which it goes, or its new path
        to: String,
    },
    /// Ask a guest to power off, and wait until it has
    Stop {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Have a guest power off, and start it again as `start` did
    Restart {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Stop a guest at once, as if its power were cut
    Kill {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Print the last of a guest's console
    Logs {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
        /// Number of the console
        #[arg(long, default_value_t = 0)]
        console: u32,
    },
    /// Make a disk of a guest larger while it runs
    Grow {
        /// The disk: cobd0, cobd1, ...
        disk: String,
        /// Its new size: 2G; without it, as large as its file or device has become
        #[arg(long)]
        size: Option<String>,
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Pull the cable of a guest's network device out, or plug it in
    Link {
        /// The device: eth0, eth1, ...
        device: String,
        /// `up` or `down`
        state: vms::LinkState,
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Have a guest get along with less memory, so that the host can use the rest, or give it back, or give it more
    Memory {
        /// What it shall have: 256M, 1G, also more than its mem=; `-` only shows what it has
        size: String,
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Have a guest use some of its vCPUs only, or all again
    Cpus {
        /// How many, at most its cpus=; `-` only shows how many it uses
        count: String,
        /// Name of the guest; not needed if there is one
        name: Option<String>,
    },
    /// Print what the driver has counted for a guest
    Stats {
        /// Name of the guest; not needed if there is one
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what Prometheus reads, for all your guests
    Metrics,
    /// Have systemd start and stop guests
    Service {
        #[command(subcommand)]
        command: service::Command,
    },
    /// Load, unload or show the driver in the host's kernel
    Driver {
        #[command(subcommand)]
        command: driver::Command,
    },
    /// Say what is in the way of a guest on this machine, and the cure
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write symbols of both worlds for gdb: running kernel, loaded driver, guest object
    Symbols {
        /// Where the files go; `gdb -x colinux.gdb` there reads them
        folder: PathBuf,
        /// The kernel of a guest, for its symbols: a vmlinuz, or a .deb that has one
        #[arg(long, value_name = "VMLINUZ")]
        guest: Option<PathBuf>,
    },
    /// Make disk images, and look into them
    Image {
        #[command(subcommand)]
        command: image::Command,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    Man {
        /// The folder that they go to
        folder: PathBuf,
    },
    /// Look at configurations
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Look at kernels
    Kernel {
        #[command(subcommand)]
        command: kernel::Command,
    },
}

impl Command {
    /// Whether a guest depends on this process.
    fn runs_a_guest(&self) -> bool {
        use service::Command::Run;
        matches!(self, Self::Run(_) | Self::RunInBackground { .. } | Self::Service { command: Run { .. } })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.command.runs_a_guest() {
        reader::may_go();
    }
    let level = match arguments.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    let stderr = std::io::stderr;
    let messages = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        // It would panic when nobody reads the messages any more.
        .log_internal_errors(false)
        .with_target(false);
    // Whoever wants to know everything wants to know when.
    if arguments.verbose > 1 {
        messages.with_timer(uptime()).init()
    } else {
        messages.without_time().init()
    }
    let result = match arguments.command {
        Command::Run(guest) => {
            let (words, append) = guest.words();
            run::run(&words, append)
        }
        Command::Start(guest) => {
            let (words, append) = guest.words();
            start::start(&words, &append)
        }
        Command::RunInBackground { words, append } => start::run_in_background(&words, append),
        Command::List { json } => vms::list(json),
        Command::Attach { name, console, quiet } => attach::attach(name.as_deref(), console, quiet),
        Command::Exec { terminal, wait, name, command } => {
            return exec::exec(name.as_deref(), wait, terminal, command)
                .unwrap_or_else(|failure| report(&failure));
        }
        Command::Desktop { name, x11, sound } => {
            desktop::run(name.as_deref(), &config::Desktop { x11, sound })
        }
        Command::Cp { wait, from, to } => copy::copy(&from, &to, wait),
        Command::Stop { name } => vms::end(name.as_deref(), &Request::Stop),
        Command::Restart { name } => start::restart(name.as_deref()),
        Command::Kill { name } => vms::end(name.as_deref(), &Request::Kill),
        Command::Logs { name, console } => vms::logs(name.as_deref(), console),
        Command::Grow { disk, size, name } => vms::grow(name.as_deref(), disk, size.as_deref()),
        Command::Link { device, state, name } => vms::link(name.as_deref(), device, state),
        Command::Cpus { count, name } => vms::cpus(name.as_deref(), &count),
        Command::Memory { size, name } => vms::memory(name.as_deref(), &size),
        Command::Stats { name, json } => vms::stats(name.as_deref(), json),
        Command::Metrics => metrics::metrics(),
        Command::Service { command } => service::run(command),
        Command::Driver { command } => driver::run(command),
        Command::Doctor { json } => Ok(doctor::run(json)),
        Command::Symbols { folder, guest } => symbols::run(&folder, guest.as_deref()),
        Command::Completions { shell } => Ok(pages::completions(shell)),
        Command::Man { folder } => pages::man(&folder),
        Command::Image { command } => image::run(command),
        Command::Config { command: config::Command::Show { form, words } } => config::show(form, &words),
        Command::Config { command: config::Command::Check { json, words } } => check::check(&words, json),
        Command::Kernel { command } => kernel::run(command),
    };
    match result {
        Ok(status) => status.into(),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    tell(failure);
    Status::of(failure).into()
}
