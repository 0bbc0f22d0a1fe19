//! Puts what is in an overlay into the image below it.

use crate::{ImageError, Source, end::private_folder, file::folder_of};
use colinux_devices::{ImageOptions, Overlay};
use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

/// Writes what `base` and its `overlay` show together to a new image, which takes the place of `base`; then removes the overlay, which has nothing more to say. Whatever
/// happens, `base` is the old one or the new one as a whole. `progress` gets the share that is done, in percent.
///
/// # Errors
/// One is in use, the overlay lies on another image, or there is no room for the copy.
pub fn commit(base: &Path, overlay: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), ImageError> {
    let read = |source| ImageError::Read { path: base.to_owned(), source };
    // The format follows from the name that was said. What a link leads to is replaced, not the link.
    let (options, name) = (ImageOptions::new(base.to_owned()), base.file_name().unwrap_or_default());
    let base = &*base.canonicalize().map_err(read)?;
    let write = |source| ImageError::Write { path: base.to_owned(), source };
    let metadata = fs::metadata(base).map_err(read)?;
    fs::metadata(overlay).map_err(|source| ImageError::Read { path: overlay.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(ImageError::NotFile(base.to_owned()));
    }
    // Both are locked against writers until the end.
    let below = ImageOptions { overlay: Overlay::File(overlay.to_owned()), ..options };
    let source = Source::of(&below)?;
    let folder = folder_of(base);
    let place = private_folder(".colinux-commit-", folder).map_err(write)?;
    let new = place.path().join(name);
    source.convert(&new, None, progress)?;
    let (user, group) = (metadata.uid(), metadata.gid());
    let made = fs::metadata(&new).map_err(write)?;
    if (made.uid(), made.gid()) != (user, group) {
        chown(&new, Some(user), Some(group)).map_err(write)?;
    }
    fs::set_permissions(&new, metadata.permissions()).map_err(write)?;
    fs::rename(&new, base).map_err(write)?;
    // The new one has its name for good before the overlay goes.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(write)?;
    fs::remove_file(overlay).map_err(|source| ImageError::Write { path: overlay.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::tests::disk, import::tests::Place};
    use colinux_devices::{Format, Slices};

    #[test]
    fn what_an_overlay_has_comes_into_its_base() {
        let place = Place::new();
        let (raw, _) = disk(&place);
        let qcow2 = place.path("disk.qcow2");
        Source::open(&raw).unwrap().convert(&qcow2, None, &mut |_| {}).unwrap();
        for base in [raw, qcow2] {
            let top = place.path("top.qcow2");
            let both =
                ImageOptions { overlay: Overlay::File(top.clone()), ..ImageOptions::new(base.clone()) };
            let storage = both.open().unwrap();
            storage.write(Slices::from(&mut [0x5a; 4096][..]), 1 << 20).unwrap();
            storage.sync().unwrap();
            assert!(matches!(commit(&base, &top, &mut |_| {}), Err(ImageError::Storage(_))), "it is in use");
            drop(storage);
            let other = place.path("other.img");
            fs::write(&other, [0; 4096]).unwrap();
            assert!(commit(&other, &top, &mut |_| {}).unwrap_err().to_string().contains("it lies on"));
            let link = place.path("link").with_extension(base.extension().unwrap());
            std::os::unix::fs::symlink(base.file_name().unwrap(), &link).unwrap();
            // Only root can give a file away.
            let _ = chown(&base, Some(4242), Some(4243));
            let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
            let before = owner(&base);
            commit(&link, &top, &mut |_| {}).unwrap();
            assert_eq!(owner(&base), before);
            assert!(link.is_symlink());
            assert!(!top.exists());
            let image = ImageOptions { read_only: true, ..ImageOptions::new(base.clone()) };
            assert_eq!(image.format, Format::of_name(&base));
            let mut bytes = [0; 4096];
            image.open().unwrap().read(Slices::from(&mut bytes[..]), 1 << 20).unwrap();
            assert_eq!(bytes, [0x5a; 4096]);
            assert!(Source::open(&base).unwrap().check().unwrap().0);
        }
    }
}
