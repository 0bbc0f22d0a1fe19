//! Paths that stay right when the program goes to another folder, as a guest in the background does.

use super::{AUTO, Config};
use std::{
    io,
    path::{PathBuf, absolute},
};

impl Config {
    /// Makes paths absolute that are used again while the guest runs: at a reboot, or by what serves it.
    ///
    /// # Errors
    /// There is no current folder.
    pub fn make_absolute(&mut self) -> io::Result<()> {
        let disks = self.disks.values_mut().map(|disk| &mut disk.path);
        let folders = self.folders.values_mut().map(|folder| &mut folder.path);
        for path in disks.chain(folders).chain(&mut self.kernel).chain(&mut self.initrd) {
            *path = absolute(&path)?;
        }
        if let Some(sound) = self.desktop.sound.as_mut().filter(|sound| *sound != AUTO) {
            *sound = absolute(PathBuf::from(&sound))?.display().to_string();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env::current_dir;

    #[test]
    fn a_guest_boots_again_wherever_its_process_is() {
        let here = current_dir().unwrap();
        let words = ["kernel=k", "initrd=../i", "cobd0=d", "cofs0=f", "sound=s"].map(str::to_owned);
        let mut config = Config::from_words(&words).unwrap();
        config.make_absolute().unwrap();
        assert_eq!(config.kernel, Some(here.join("k")));
        assert_eq!(config.initrd, Some(here.join("../i")));
        assert_eq!((&config.disks[&0].path, &config.folders[&0].path), (&here.join("d"), &here.join("f")));
        assert_eq!(config.desktop.sound, Some(here.join("s").display().to_string()));
        let before = config.clone();
        config.make_absolute().unwrap();
        assert_eq!(config, before);
        let mut config = Config::from_words(&["kernel=/k", "sound=auto"].map(str::to_owned)).unwrap();
        config.make_absolute().unwrap();
        assert_eq!(config.desktop.sound.as_deref(), Some(AUTO));
    }
}
