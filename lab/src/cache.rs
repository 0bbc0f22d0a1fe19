//! The cache: what is costly to make is made once, under a name that says what it is made of.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// The cache's folder: `COLINUX_CACHE`, else `colinux` in the user's cache folder.
pub fn dir() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = var("COLINUX_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("colinux")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/colinux")))
        .context(
            "neither COLINUX_CACHE nor HOME is set: set COLINUX_CACHE to a folder for the lab's images",
        )?;
    fs::create_dir_all(&dir).with_context(|| format!("creating the cache folder {}", dir.display()))?;
    Ok(dir)
}

/// The entry `name`, made by `make` if it is not there yet.
///
/// `make` gets a path to create as a file or folder; it becomes the entry only when `make` succeeds. Other
/// processes that want the same entry wait for the first one.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = dir()?;
    let path = dir.join(name);
    if path.exists() {
        return Ok(path);
    }
    let _lock = lock(&dir, name)?;
    if path.exists() {
        return Ok(path);
    }
    let partial = dir.join(format!("{name}.partial"));
    remove(&partial)?;
    make(&partial)?;
    fs::rename(&partial, &path).with_context(|| format!("keeping {}", path.display()))?;
    Ok(path)
}

/// Holds the lock called `name` until the returned file is dropped.
pub fn lock(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(format!(".{name}.lock"));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Removes a file or a folder if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A short name for the recipe of an entry, so that a changed recipe makes a new entry.
pub fn digest(recipe: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    format!("{:010x}", hasher.finish() >> 24)
}
