//! `colinux service`: guests that systemd starts and stops.

use crate::{
    config::ConfigError,
    run::run_in,
    status::{Failure, Status},
};
use sd_notify::NotifyState;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tracing::warn;

/// Units, by the names of their files; `@COLINUX@` stands for this executable.
const UNITS: [(&str, &str); 2] = [
    ("colinux-driver.service", include_str!("../package/colinux-driver.service")),
    ("colinux@.service", include_str!("../package/colinux@.service")),
];
/// Where the configurations of services are.
const CONFIGURATIONS: &str = "/etc/colinux";
/// Endings that a configuration may have.
const ENDINGS: [&str; 2] = ["conf", "toml"];

/// What to do for systemd.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Write the units, which the Debian package has already
    Install {
        /// Where they go
        #[arg(long, default_value = "/etc/systemd/system")]
        folder: PathBuf,
        /// Path of the program in them; this one, unless given
        #[arg(long)]
        executable: Option<PathBuf>,
    },
    /// Run the guest of /etc/colinux/NAME.conf; the unit `colinux@NAME` does that
    Run {
        /// Name of the guest and of its configuration
        name: String,
    },
}

/// Does it.
pub fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Install { folder, executable } => install(&folder, executable),
        Command::Run { name } => serve(&name, Path::new(CONFIGURATIONS)),
    }
}

fn install(folder: &Path, executable: Option<PathBuf>) -> Result<Status, Failure> {
    let executable = match executable {
        Some(path) => path,
        None => {
            env::current_exe().map_err(|source| ConfigError::Read { path: "this program".into(), source })?
        }
    };
    for (name, unit) in UNITS {
        let path = folder.join(name);
        let text = unit.replace("@COLINUX@", &executable.display().to_string());
        fs::write(&path, text).map_err(|source| ConfigError::Write { path, source })?;
    }
    colinux_vmm::tell(format_args!(
        "put what `colinux run` takes into {CONFIGURATIONS}/NAME.conf, a word on each line, then\n    systemctl daemon-reload\n    systemctl enable --now colinux@NAME"
    ));
    Ok(Status::Ok)
}

fn serve(name: &str, folder: &Path) -> Result<Status, Failure> {
    let words = [format!("@{}", configuration(name, folder).display()), format!("name={name}")];
    run_in(&words, Vec::new(), true, &|_| {
        if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
            warn!("systemd cannot be told that the guest runs: {error}");
        }
    })
}

/// The file that describes `name`; without one, that which the error shall name.
fn configuration(name: &str, folder: &Path) -> PathBuf {
    let paths = ENDINGS.map(|ending| folder.join(format!("{name}.{ending}")));
    let found = paths.iter().find(|path| path.exists()).unwrap_or(&paths[0]);
    found.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_name_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let done = install(folder.path(), Some("/opt/colinux".into()));
        assert!(matches!(done, Ok(Status::Ok)));
        for (name, _) in UNITS {
            let unit = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(
                unit.contains("ExecStart=/opt/colinux ")
                    && !unit.contains('@'.to_string().repeat(2).as_str())
            );
        }
    }

    #[test]
    fn a_service_without_a_configuration_says_which_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let failure = serve("web", folder.path()).err().unwrap();
        assert_eq!(Status::of(&failure), Status::Image);
        assert!(failure.to_string().contains("web.conf"), "{failure}");
        fs::write(folder.path().join("web.toml"), "").unwrap();
        assert_eq!(configuration("web", folder.path()), folder.path().join("web.toml"));
    }
}
