//! Turns the host object into a module for a kernel that runs.

mod bind;
mod modinfo;
mod read;
mod sites;
mod unwind;
mod write;

use crate::error::{ImageError, LinkError};
use crate::image::KernelImage;

/// Makes a loadable module (the bytes of a `.ko` file) of the relocatable host object.
///
/// # Errors
/// [`LinkError::Mismatch`] names everything in which the kernel differs from what the object asks.
pub fn make_module(image: &KernelImage, object: &[u8]) -> Result<Vec<u8>, LinkError> {
    image.check_calls()?;
    if image.btf().is_none() {
        return Err(ImageError::NoBtf.into());
    }
    let host = read::parse(object).map_err(LinkError::BadObject)?;
    let bound = bind::bind(image, &host)?;
    let info = modinfo::gather(image, &bound)?;
    write::write(image, &host, &bound, &info).map_err(LinkError::BadObject)
}
