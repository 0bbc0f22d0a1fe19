//! The sections by which a kernel recognises its modules.
//!
//! Source: scripts/mod/modpost.c (the writer), kernel/module/main.c and version.c (the readers).

use super::bind::Bound;
use crate::error::{LinkError, Problem};
use crate::image::KernelImage;
use crate::layout::FieldLayout;

/// The sections' contents.
pub struct Info {
    pub modinfo: Vec<u8>,
    /// `__versions`, when the kernel checks them.
    pub versions: Option<Vec<u8>>,
    /// `.gnu.linkonce.this_module`.
    pub this_module: Vec<u8>,
    /// Offsets of the pointers to the init and exit functions in it.
    pub init: u64,
    pub exit: Option<u64>,
}

pub fn gather(image: &KernelImage, bound: &Bound) -> Result<Info, LinkError> {
    let mut problems = Vec::new();
    let mut problem = |slot: &str, reason: String| problems.push(Problem { slot: slot.into(), reason });
    let vermagic = image.vermagic().unwrap_or_else(|| {
        problem("vermagic", "the kernel image does not tell its module version string".into());
        ""
    });
    let versions = versions(image, bound).unwrap_or_else(|reason| {
        problem("__versions", reason);
        None
    });
    let this =
        ThisModule::read(image, &bound.module.name).map_err(|reason| problem("struct module", reason)).ok();
    match this {
        Some(this) if problems.is_empty() => Ok(Info {
            modinfo: modinfo(vermagic, bound),
            versions,
            this_module: this.bytes,
            init: this.init,
            exit: this.exit,
        }),
        _ => Err(LinkError::Mismatch { release: image.release().into(), problems }),
    }
}

fn modinfo(vermagic: &str, bound: &Bound) -> Vec<u8> {
    let module = &bound.module;
    let mut lines = vec![
        format!("license={}", module.license),
        format!("description={}", module.description),
        "depends=".into(),
        "retpoline=Y".into(),
        format!("name={}", module.name),
        format!("vermagic={vermagic}"),
    ];
    lines.extend(bound.namespaces.iter().map(|namespace| format!("import_ns={namespace}")));
    lines.iter().flat_map(|line| line.bytes().chain([0])).collect()
}

/// The start of a `struct module`, the rest of which is zero.
struct ThisModule {
    bytes: Vec<u8>,
    init: u64,
    exit: Option<u64>,
}

impl ThisModule {
    fn read(image: &KernelImage, name: &str) -> Result<Self, String> {
        let layout = image.layout();
        let text = |error: crate::layout::LayoutError| error.to_string();
        let size = layout.size_of("module").map_err(text)?;
        let name_at = layout.field("module.name").map_err(text)?;
        let pointer = |path: &str| match layout.field(path) {
            Ok(FieldLayout { offset, size: 8, .. }) => Ok(offset),
            Ok(_) => Err(format!("{path} is not a pointer")),
            Err(error) => Err(error.to_string()),
        };
        let mut bytes =
            vec![0; usize::try_from(size).ok().filter(|size| *size < 1 << 20).ok_or("it is too large")?];
        let room = usize::try_from(name_at.offset).ok().zip(usize::try_from(name_at.size).ok());
        let room =
            room.and_then(|(at, len)| bytes.get_mut(at..at.checked_add(len)?)).ok_or("it has no room")?;
        if name.is_empty() || name.len() >= room.len() {
            return Err(format!("the name {name:?} does not fit"));
        }
        room[..name.len()].copy_from_slice(name.as_bytes());
        // A kernel without CONFIG_MODULE_UNLOAD has no exit.
        Ok(Self { bytes, init: pointer("module.init")?, exit: pointer("module.exit").ok() })
    }
}

/// `struct modversion_info` in the two forms that exist.
enum Record {
    /// `{ unsigned long crc; char name[N]; }`, all of the same size.
    Fixed { size: usize, name: usize },
    /// `{ u32 next; u32 crc; char name[]; }`, as Ubuntu 6.8 has it.
    Linked,
}

impl Record {
    fn read(image: &KernelImage) -> Result<Self, String> {
        let layout = image.layout();
        let field = |name: &str| layout.field(&format!("modversion_info.{name}"));
        let crc = field("crc").map_err(|error| error.to_string())?;
        let name = field("name").map_err(|error| error.to_string())?;
        let size = layout.size_of("modversion_info").map_err(|error| error.to_string())?;
        match (field("next"), crc.offset, crc.size, name.offset, name.size) {
            (Ok(next), 4, 4, 8, 0) if next.offset == 0 && next.size == 4 => Ok(Self::Linked),
            (Err(_), 0, 8, 8, length) if length > 1 && size == 8 + length && size < 4096 => {
                Ok(Self::Fixed { size: size as usize, name: length as usize })
            }
            _ => Err("this kernel has an unknown struct modversion_info".into()),
        }
    }

    fn append(&self, section: &mut Vec<u8>, symbol: &str, crc: u32) -> Result<(), String> {
        match self {
            Self::Fixed { name, .. } if symbol.len() >= *name => {
                return Err(format!("the name {symbol} does not fit"));
            }
            Self::Fixed { size, .. } => {
                let end = section.len() + size;
                section.extend(u64::from(crc).to_le_bytes());
                section.extend(symbol.bytes());
                section.resize(end, 0);
            }
            Self::Linked => {
                let length = (8 + symbol.len() + 1).next_multiple_of(4);
                let end = section.len() + length;
                section.extend((length as u32).to_le_bytes());
                section.extend(crc.to_le_bytes());
                section.extend(symbol.bytes());
                section.resize(end, 0);
            }
        }
        Ok(())
    }
}

fn versions(image: &KernelImage, bound: &Bound) -> Result<Option<Vec<u8>>, String> {
    if !image.exports().versioned() {
        return Ok(None);
    }
    let record = Record::read(image)?;
    let mut section = Vec::new();
    let layout = image.exports().get("module_layout").ok_or("this kernel does not export module_layout")?;
    let layout = [("module_layout", layout)].into_iter();
    for (name, export) in layout.chain(bound.exports.iter().map(|(name, export)| (name.as_str(), export))) {
        let crc = export.crc.ok_or_else(|| format!("this kernel has no checksum of {name}"))?;
        record.append(&mut section, name, crc)?;
    }
    Ok(Some(section))
}
