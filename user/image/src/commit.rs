//! Puts what is in an overlay into the image below it.

use crate::{ImageError, Source, file::folder_of};
use colinux_devices::{ImageOptions, Overlay};
use std::{fs, path::Path};

/// Writes what `base` and its `overlay` show together to a new image, which takes the place of `base`; then removes the overlay, which has nothing more to say. Whatever
/// happens, `base` is the old one or the new one as a whole. `progress` gets the share that is done, in percent.
///
/// # Errors
/// One is in use, the overlay lies on another image, or there is no room for the copy.
pub fn commit(base: &Path, overlay: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), ImageError> {
    let write = |source| ImageError::Write { path: base.to_owned(), source };
    let metadata = fs::metadata(base).map_err(|source| ImageError::Read { path: base.to_owned(), source })?;
    fs::metadata(overlay).map_err(|source| ImageError::Read { path: overlay.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(ImageError::NotFile(base.to_owned()));
    }
    // Both are locked against writers until the end.
    let below =
        ImageOptions { overlay: Overlay::File(overlay.to_owned()), ..ImageOptions::new(base.to_owned()) };
    let source = Source::of(&below)?;
    let name = base.file_name().unwrap_or_default().to_string_lossy();
    let folder = folder_of(base);
    // The format follows from the name's end.
    let place = tempfile::Builder::new().prefix(".colinux-commit-").tempdir_in(folder).map_err(write)?;
    let new = place.path().join(&*name);
    source.convert(&new, None, progress)?;
    fs::set_permissions(&new, metadata.permissions()).map_err(write)?;
    fs::rename(&new, base).map_err(write)?;
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
            commit(&base, &top, &mut |_| {}).unwrap();
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
