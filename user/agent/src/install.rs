//! How the agent comes into a guest whose image knows nothing of it: from the initrd into the real system.
//!
//! The initrd's /run becomes that of the system, and systemd reads units from /run/systemd/system (systemd.unit(5)). Programs cannot be run from /run (`noexec`), so the
//! agent has a file system of its own there.

use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::Path,
};

/// The agent in the initrd.
pub const PROGRAM: &str = "/colinux/agent";
/// The token in the initrd, in hexadecimal digits.
pub const TOKEN_FILE: &str = "/colinux/token";

const PLACE: &str = "/run/colinux-agent";
const UNITS: &str = "/run/systemd/system";
const UNIT: &str = "colinux-agent.service";
const WANTS: &str = "multi-user.target.wants";
/// Commands outlive the agent, as a login's processes outlive sshd.
const TEXT: &str = "[Unit]
Description=Commands of the host (colinux exec)

[Service]
ExecStart=/run/colinux-agent/agent serve /run/colinux-agent/token
KillMode=process
Restart=on-failure
";

/// Puts agent, token and unit where the real system finds them.
///
/// # Errors
/// A file cannot be written.
pub fn install() -> io::Result<()> {
    let place = Path::new(PLACE);
    DirBuilder::new().recursive(true).mode(0o700).create(place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("colinux-agent"), place, Some("tmpfs"), flags, Some("mode=0700,size=16m"))?;
    fs::copy(PROGRAM, place.join("agent"))?;
    let mut token =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place.join("token"))?;
    io::copy(&mut fs::File::open(TOKEN_FILE)?, &mut token)?;
    let units = Path::new(UNITS);
    fs::create_dir_all(units.join(WANTS))?;
    fs::write(units.join(UNIT), TEXT)?;
    symlink(Path::new("..").join(UNIT), units.join(WANTS).join(UNIT))
}
