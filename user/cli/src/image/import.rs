//! `colinux image import`.

use crate::{
    config::{ConfigError, parse_bytes, place_image},
    image::{files, spinner, word_for},
    kernel::add_kernel,
    status::{Failure, Status},
};
use clap::Args;
use colinux_image::{Import as Recipe, Imported, KernelSource, Source, is_archive};
use colinux_objects::AGENT;
use std::path::{Path, PathBuf};

/// What is imported, and how.
#[derive(Args)]
#[command(after_help = "\
The system is copied into one ext4 file system. One that has a kernel and an initrd in /boot boots these. Any other gets the kernel that --kernel names, and an initrd
with the modules for a guest's disk. A system without an init, as most images of containers are, starts with a shell on the console, and `exit` powers it off.

  docker save alpine | gzip > alpine.tar.gz; colinux image import alpine.tar.gz
  colinux image import rootfs.tar.xz web.img --size 20G --kernel linux-image-cloud-amd64
  colinux image import rootfs.tar --kernel linux-image-6.12.deb")]
pub struct Import {
    /// A tar of a root file system, what `docker save` writes, an OCI layout, or a disk image of any kind that `colinux run` takes
    source: PathBuf,
    /// The image; SOURCE's name with .img unless it is said; a name without folder and extension is for the folder of your images
    output: Option<PathBuf>,
    /// A kernel's package: a .deb file, or its name in Debian; twice if kernel and modules are apart
    #[arg(long)]
    kernel: Vec<String>,
    /// The release of Debian that a kernel comes from by its name
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// Size of the disk; the file has holes, and `colinux grow` makes it larger
    #[arg(long, default_value = "8G")]
    pub(crate) size: String,
}

/// The kernel for a system that has none.
const KERNEL: &str = "linux-image-amd64";

impl Import {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let name = self.output.clone().unwrap_or_else(|| default_output(&self.source));
        let output = place_image(&name)?;
        if !is_archive(&self.source)? {
            return self.copy(&output);
        }
        let package = |name: &str| KernelSource::Package { name: name.to_owned(), suite: self.suite.clone() };
        let import = Recipe {
            kernel: kernel(&self.kernel, package)?,
            fallback: package(KERNEL),
            size: parse_bytes(&self.size)?,
            agent: AGENT,
            source: self.source,
        };
        let bar = spinner();
        let made = import.create(&output, &mut |step| bar.set_message(step.to_owned()));
        bar.finish_and_clear();
        tell(&output, &name, &made?);
        Ok(Status::Ok)
    }
}

impl Import {
    /// A disk is a system already, perhaps one without a kernel.
    fn copy(self, output: &Path) -> Result<Status, Failure> {
        files::convert(&self.source, output, None)?;
        let package = |name: &str| KernelSource::Package { name: name.to_owned(), suite: self.suite.clone() };
        if let Some(kernel) = kernel(&self.kernel, package)? {
            return add_kernel(output, &kernel);
        }
        if Source::open(output)?.disk()?.kernels().1.is_none() {
            let output = output.display();
            println!("{output}: has no kernel; `colinux kernel add {output} {KERNEL}` writes one to it");
        }
        Ok(Status::Ok)
    }
}

/// Where a kernel comes from: package files, or a package by its name.
pub fn kernel(
    words: &[String],
    package: impl Fn(&str) -> KernelSource,
) -> Result<Option<KernelSource>, ConfigError> {
    let is_file = |word: &&String| word.ends_with(".deb") || word.contains('/');
    match words {
        [] => Ok(None),
        [name] if !is_file(&name) => Ok(Some(package(name))),
        files => match files.iter().find(|word| !is_file(word)) {
            None => Ok(Some(KernelSource::Files(files.iter().map(PathBuf::from).collect()))),
            Some(word) => Err(ConfigError::BadValue {
                word: word.clone(),
                reason: "several --kernel are .deb files; a package by its name brings all that it needs",
            }),
        },
    }
}

fn default_output(source: &Path) -> PathBuf {
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut stem = name.as_str();
    for ending in [".gz", ".xz", ".zst", ".tgz", ".txz", ".tar", ".qcow2", ".vmdk", ".vhdx", ".vhd", ".vdi"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    format!("{stem}.img").into()
}

fn tell(path: &Path, name: &Path, imported: &Imported) {
    let (path, word) = (path.display(), word_for(path, name).display());
    if let Some(kernel) = &imported.kernel {
        println!("{path}: has the kernel {kernel} now");
    }
    if imported.has_init {
        println!("{path}: run it by `sudo colinux run {word}`");
    } else {
        println!("{path}: has no init, so `sudo colinux run {word}` starts its shell, and `exit` powers off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_after_its_source() {
        for (source, image) in
            [("/a/b.tar.gz", "b.img"), ("c.tgz", "c.img"), ("d", "d.img"), ("e-1.2.tar", "e-1.2.img")]
        {
            assert_eq!(default_output(Path::new(source)), Path::new(image));
        }
    }

    #[test]
    fn kernels_are_files_or_a_package() {
        let package = |name: &str| KernelSource::Package { name: name.to_owned(), suite: "s".to_owned() };
        let parse = |words: &[&str]| {
            kernel(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), package)
        };
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&["linux-image-amd64"]).unwrap(), Some(package("linux-image-amd64")));
        let files = KernelSource::Files(vec!["a.deb".into(), "./b".into()]);
        assert_eq!(parse(&["a.deb", "./b"]).unwrap(), Some(files));
        assert!(parse(&["a.deb", "linux-image-amd64"]).is_err());
    }
}
