//! Images of containers: what `docker save` writes, and OCI layouts.

use crate::{
    ImageError,
    tree::{As, Tree},
    unpack,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// The architecture of guests.
const ARCHITECTURE: &str = "amd64";
/// Indexes that lie in one another.
const MOST_INDEXES: u32 = 4;

/// The `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A descriptor (OCI image specification, descriptor.md).
#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

/// An image index or an image manifest (image-index.md, manifest.md).
#[derive(Deserialize)]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// The parts of the configuration that matter here (config.md).
#[derive(Deserialize)]
struct Settings {
    architecture: Option<String>,
}

/// Where the files of a container's image are.
pub(crate) enum Store<'a> {
    Folder(&'a Path),
    /// Those of an archive, and the archive.
    Archive(&'a Tree, &'a Path),
}

impl Store<'_> {
    /// Whether it has a container's image.
    pub(crate) fn is_container(&self) -> bool {
        self.is_layout() || self.find("manifest.json").is_some()
    }

    fn is_layout(&self) -> bool {
        self.find("oci-layout").is_some() && self.find("index.json").is_some()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join(name)).filter(|path| path.is_file()),
            Self::Archive(tree, _) => tree.file(name),
        }
    }

    /// A file that the image names.
    fn get(&self, name: &str) -> Result<PathBuf, ImageError> {
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(name).components().all(is_plain) {
            return Err(ImageError::Container(format!("{name} leads out of it; get it from elsewhere")));
        }
        self.find(name)
            .ok_or_else(|| ImageError::Container(format!("{name} is missing; is the download complete?")))
    }

    /// A file by its hash, which is compared.
    fn blob(&self, digest: &str) -> Result<PathBuf, ImageError> {
        let Some(hash) =
            digest.strip_prefix("sha256:").filter(|hash| hash.chars().all(|c| c.is_ascii_hexdigit()))
        else {
            return Err(ImageError::Container(format!("{digest} is no SHA-256")));
        };
        let path = self.get(&format!("blobs/sha256/{hash}"))?;
        if sha256(&path).map_err(unread(&path))? == hash.to_ascii_lowercase() {
            Ok(path)
        } else {
            Err(ImageError::Container(format!("{digest} is damaged; get it again")))
        }
    }

    /// The layers, the lowest first.
    fn layers(&self) -> Result<Vec<PathBuf>, ImageError> {
        // What docker saves today is both, and only a layout has hashes.
        match self.find("manifest.json") {
            Some(path) if !self.is_layout() => self.saved_layers(&path),
            _ => self.layout_layers(),
        }
    }

    fn saved_layers(&self, manifest: &Path) -> Result<Vec<PathBuf>, ImageError> {
        let saved: Vec<Saved> = json(manifest)?;
        let [image] = &*saved else {
            let names: Vec<_> =
                saved.iter().flat_map(|image| image.repo_tags.iter().flatten()).cloned().collect();
            return Err(one_of(&names));
        };
        check(&self.get(&image.config)?)?;
        image.layers.iter().map(|layer| self.get(layer)).collect()
    }

    fn layout_layers(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut path = self.get("index.json")?;
        for _ in 0..MOST_INDEXES {
            let manifest: Manifest = json(&path)?;
            if let Some(layers) = manifest.layers {
                if let Some(config) = manifest.config {
                    check(&self.blob(&config.digest)?)?;
                }
                return layers.iter().map(|layer| self.blob(&layer.digest)).collect();
            }
            path = self.blob(&choose(&manifest.manifests.unwrap_or_default())?.digest)?;
        }
        Err(ImageError::Container("its indexes have no end".to_owned()))
    }

    /// Puts all layers into `tree`.
    pub(crate) fn unpack(&self, tree: &mut Tree) -> Result<(), ImageError> {
        for layer in self.layers()? {
            let archive = unpack::open(&layer).map_err(unread(&layer))?;
            tree.add(archive, As::Layer).map_err(|fault| fault.of_archive(self.name(&layer)))?;
        }
        Ok(())
    }

    /// What messages call a layer: one that came in an archive is nowhere else.
    fn name<'b>(&'b self, layer: &'b Path) -> &'b Path {
        match self {
            Self::Folder(_) => layer,
            Self::Archive(_, source) => source,
        }
    }
}

fn unread(path: &Path) -> impl Fn(io::Error) -> ImageError {
    move |source| ImageError::Read { path: path.to_owned(), source }
}

/// The hash of a file, in digits.
fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&piece[..count]),
        }
    }
}

/// The one for our architecture, or the only one.
fn choose(all: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let fits = |one: &&Descriptor| {
        one.platform.as_ref().is_some_and(|platform| platform.architecture == ARCHITECTURE)
    };
    let fit: Vec<_> = all.iter().filter(fits).collect();
    match (all, &*fit) {
        ([one], _) => Ok(one),
        (_, [one]) => Ok(*one),
        _ => Err(one_of(&all.iter().map(|one| one.digest.clone()).collect::<Vec<_>>())),
    }
}

fn one_of(names: &[String]) -> ImageError {
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    ImageError::Container(format!(
        "one image is needed for {ARCHITECTURE}, and it has {names}; save a single one"
    ))
}

fn check(config: &Path) -> Result<(), ImageError> {
    match json::<Settings>(config)?.architecture {
        Some(other) if other != ARCHITECTURE => {
            Err(ImageError::Container(format!("it is for {other}; get the one for {ARCHITECTURE}")))
        }
        _ => Ok(()),
    }
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ImageError> {
    let text = fs::read(path).map_err(unread(path))?;
    serde_json::from_slice(&text).map_err(|error| ImageError::Container(error.to_string()))
}
