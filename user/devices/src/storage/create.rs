//! New images.

use super::{Format, ImageOptions, Storage, StorageError, open};
use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

/// Makes an empty image of `len` bytes, readable by its owner alone, and opens it.
///
/// # Errors
/// The file exists or cannot be made, or the format can only be read.
pub fn create_image(path: &Path, format: Format, len: u64) -> Result<Arc<dyn Storage>, StorageError> {
    let io_error = |source| StorageError::Io { path: path.to_owned(), source };
    if !matches!(format, Format::Raw | Format::Qcow2) {
        let reason = "new images are raw or qcow2".to_owned();
        return Err(StorageError::Format { path: path.to_owned(), format, reason });
    }
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path).map_err(io_error)?;
    let made = match format {
        Format::Raw => file.set_len(len),
        _ => open::create(file, len, None),
    };
    let image = ImageOptions { format, ..ImageOptions::new(path.to_owned()) };
    let opened = made.map_err(io_error).and_then(|()| image.open());
    if opened.is_err() {
        // What is half made is of no use.
        let _ = fs::remove_file(path);
    }
    opened
}
