//! `cobdN=FILE[,ro][,format=FORMAT][,partition=N][,overlay=FILE][,snapshot]`.

use colinux_vmm::{Format, ImageOptions, Overlay};
use std::path::Path;

pub(super) const FORMATS: &str = "the formats are raw, qcow2, vmdk, vhd, vhdx and vdi";
pub(super) const NO_OVERLAY: &str = "the overlay needs a name";
pub(super) const ONE_OVERLAY: &str = "a disk has one overlay or snapshot";
const PARTITION: &str = "a partition has a number from 1 on";

/// Reads the value of a `cobdN=`; paths in it are relative to `base`.
///
/// What is behind the last commas and is no known word is part of the file's name.
///
/// # Errors
/// What is wrong with the words.
pub(super) fn parse(value: &str, base: &Path) -> Result<ImageOptions, &'static str> {
    let (mut name, mut words) = (value, Vec::new());
    while let Some((front, word)) = name.rsplit_once(',').filter(|(_, word)| is_known(word)) {
        (name, words) = (front, [&[word], &*words].concat());
    }
    let mut image = ImageOptions::new(base.join(name));
    for word in words {
        let overlay = match word.split_once('=') {
            Some(("format", format)) => {
                image.format = Format::named(format).ok_or(FORMATS)?;
                continue;
            }
            Some(("partition", number)) => {
                image.partition = Some(number.parse().map_err(|_| PARTITION)?);
                continue;
            }
            Some((_, "")) => return Err(NO_OVERLAY),
            Some((_, path)) => Overlay::File(base.join(path)),
            None if word == "ro" => {
                image.read_only = true;
                continue;
            }
            None => Overlay::ThrowAway,
        };
        if std::mem::replace(&mut image.overlay, overlay) != Overlay::None {
            return Err(ONE_OVERLAY);
        }
    }
    checked(image)
}

/// The disk, if its options go together.
///
/// # Errors
/// Why they do not.
pub(super) fn checked(image: ImageOptions) -> Result<ImageOptions, &'static str> {
    if image.partition == Some(0) {
        return Err(PARTITION);
    }
    if image.read_only && image.overlay != Overlay::None {
        return Err(
            "an overlay is for writing; leave `ro` away, the image below an overlay is never written",
        );
    }
    Ok(image)
}

fn is_known(word: &str) -> bool {
    matches!(word, "ro" | "snapshot")
        || ["format=", "overlay=", "partition="].iter().any(|start| word.starts_with(start))
}
