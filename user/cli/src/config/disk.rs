//! `cobdN=FILE[,ro][,format=FORMAT][,partition=N][,overlay=FILE][,snapshot]`.

use colinux_vmm::{Format, ImageOptions, Overlay};
use std::path::Path;

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
                image.format =
                    Format::named(format).ok_or("the formats are raw, qcow2, vmdk, vhd, vhdx and vdi")?;
                continue;
            }
            Some(("partition", number)) => {
                let number = number.parse().ok().filter(|number| *number > 0);
                image.partition = Some(number.ok_or("a partition has a number from 1 on")?);
                continue;
            }
            Some((_, "")) => return Err("the overlay needs a name"),
            Some((_, path)) => Overlay::File(base.join(path)),
            None if word == "ro" => {
                image.read_only = true;
                continue;
            }
            None => Overlay::ThrowAway,
        };
        if std::mem::replace(&mut image.overlay, overlay) != Overlay::None {
            return Err("a disk has one overlay or snapshot");
        }
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
