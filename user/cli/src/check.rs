//! What can be said of a configuration before the driver is asked for anything: `colinux config check`, and the beginning of `run`.

use crate::{
    config::{Config, ConfigError},
    desktop::Beside,
    run::options,
    status::{Failure, Status},
};
use colinux_agent::{TOKEN_LEN, Token};
use colinux_vmm::Options;
use serde::Serialize;
use serde_json::json;
use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::Path,
};

/// What is wrong with the files of `config`, and with the `options` that were made for it; each as `run` says it.
pub fn faults(config: &Config, options: &Options) -> Vec<Failure> {
    let files = config.disks.values().map(|disk| &disk.path).chain(&config.kernel).chain(&config.initrd);
    let files = files.filter_map(|path| unusable(path, File::open(path).err()?));
    files.chain(options.check().err().map(Failure::from)).collect()
}

/// These, a desktop that is not there, which `run` looks for next, and what it finds later.
fn all_faults(config: &Config) -> Vec<Failure> {
    // The guest is never started, so nobody knows its token.
    let mut found = faults(config, &options(config, false, &Token([0; TOKEN_LEN])));
    found.extend(Beside::wanted(config).err().map(Failure::from));
    found.extend(folders(config));
    found
}

/// Folders that cannot be used, which `run` sees when it starts what serves them.
fn folders(config: &Config) -> impl Iterator<Item = Failure> {
    let folders = config.folders.values().map(|folder| &folder.path);
    folders.filter_map(|path| unusable(path, fs::read_dir(path).err()?))
}

fn unusable(path: &Path, source: io::Error) -> Option<Failure> {
    Some(ConfigError::Read { path: path.to_owned(), source }.into())
}

/// A file that is named and not there, or not to be read.
#[derive(Serialize)]
struct Missing<'a> {
    path: Cow<'a, str>,
    reason: String,
}

/// Says what is wrong with what `words` describe.
pub fn check(words: &[String], json: bool) -> Result<Status, Failure> {
    let config = Config::from_words(words)?;
    let found = all_faults(&config);
    tell(&config.notes, &found, json);
    Ok(found.first().map_or(Status::Ok, Status::of))
}

fn tell(notes: &[String], found: &[Failure], json: bool) {
    let (mut missing, mut faults) = (Vec::new(), Vec::new());
    for failure in found {
        match failure {
            Failure::Config(ConfigError::Read { path, source }) => {
                missing.push(Missing { path: path.to_string_lossy(), reason: source.to_string() });
            }
            failure => faults.push(failure.to_string()),
        }
    }
    if json {
        let mut all = json!({ "notes": notes, "missing": missing });
        if !faults.is_empty() {
            all["faults"] = json!(faults);
        }
        println!("{all}");
        return;
    }
    notes.iter().for_each(|note| println!("{note}"));
    missing.iter().for_each(|Missing { path, reason }| println!("{path}: {reason}"));
    faults.iter().for_each(|fault| println!("{fault}"));
    found.is_empty().then(|| println!("the configuration is right"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[String]) -> Vec<String> {
        let config = Config::from_words(words).unwrap();
        all_faults(&config).iter().map(Failure::to_string).collect()
    }

    #[test]
    fn all_that_run_would_refuse_before_the_driver_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        fs::write(&path, "").unwrap();
        let good = [format!("kernel={}", path.display()), format!("cofs0={}", folder.path().display())];
        assert_eq!(found(&good), [""; 0]);
        assert_eq!(check(&good, true).unwrap(), Status::Ok);
        let with = |more: &[&str]| {
            [&good[..], &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()].concat()
        };
        for (words, part, status) in [
            (with(&["initrd=/does/not/exist"]), "cannot read /does/not/exist", Status::Image),
            (with(&["cofs0=/does/not/exist"]), "cannot read /does/not/exist", Status::Image),
            (with(&["x11=nowhere"]), "is no display", Status::Usage),
            (with(&["x11=:0", "vsock=off"]), "take `vsock=off` away", Status::Usage),
        ] {
            let found = found(&words);
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
            assert_eq!(check(&words, false).unwrap(), status);
        }
        let many: Vec<_> = (0..64).map(|number| format!("eth{number}=slirp")).collect();
        let words = [&good[..], &many, &["x11=nowhere".to_owned()]].concat();
        let found = found(&words);
        assert!(found.len() == 2 && found[0].contains("leave"), "{found:?}");
        assert_eq!(check(&words, true).unwrap(), Status::Usage);
    }
}
