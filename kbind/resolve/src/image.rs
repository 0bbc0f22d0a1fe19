//! A kernel image: the file that the distribution ships, unpacked and indexed.

use crate::btf::Btf;
use crate::bytes::{align_up, c_str, slice, u32_at};
use crate::error::ImageError;
use crate::exports::Exports;
use crate::kallsyms::Symbols;
use crate::layout::{Layout, OffsetFile};
use crate::payload;
pub use crate::vmlinux::Segment;
use crate::vmlinux::Vmlinux;
use std::ops::Range;

/// An x86-64 Linux kernel with its symbols and types.
pub struct KernelImage {
    vmlinux: Vmlinux,
    boot_header: Option<Vec<u8>>,
    release: String,
    symbols: Symbols,
    btf: Option<Btf>,
    offsets: Option<OffsetFile>,
    exports: Exports,
}

impl KernelImage {
    /// Reads a bzImage (`vmlinuz`) or an uncompressed `vmlinux`.
    ///
    /// # Errors
    /// [`ImageError`] tells what is wrong with the file. A kernel without BTF is refused.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        Self::parse_by(bytes, &payload::unpack)
    }

    /// As [`KernelImage::parse`]; the compressed kernel of a bzImage is unpacked by `unpack`.
    ///
    /// # Errors
    /// [`ImageError`] tells what is wrong with the file; those of `unpack`.
    pub fn parse_by(bytes: Vec<u8>, unpack: Unpack<'_>) -> Result<Self, ImageError> {
        Self::read(bytes, None, unpack)
    }

    /// As [`KernelImage::parse`], for a kernel without BTF: layouts come from `offsets`, prototypes are unchecked.
    ///
    /// # Errors
    /// [`ImageError`] tells what is wrong with the file.
    pub fn parse_with_offsets(bytes: Vec<u8>, offsets: OffsetFile) -> Result<Self, ImageError> {
        Self::read(bytes, Some(offsets), &payload::unpack)
    }

    fn read(bytes: Vec<u8>, offsets: Option<OffsetFile>, unpack: Unpack<'_>) -> Result<Self, ImageError> {
        let (unpacked, boot_header, version) = open(bytes, unpack)?;
        let vmlinux = Vmlinux::parse(unpacked)?;
        let release = version.or_else(|| banner(&vmlinux.bytes)).ok_or(ImageError::NoRelease)?;
        let symbols = Symbols::find(&vmlinux)?;
        let btf = match table(&vmlinux, &symbols, ".BTF", "__start_BTF", "__stop_BTF") {
            Some((_, range)) => Some(Btf::parse(vmlinux.bytes[range].to_vec())?),
            None => None,
        };
        if btf.is_none() && offsets.is_none() {
            return Err(ImageError::NoBtf);
        }
        let exports = Exports::read(&vmlinux, &symbols);
        Ok(Self { vmlinux, boot_header, release, symbols, btf, offsets, exports })
    }

    /// The release, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The setup header of a bzImage, to be copied to `boot_params` at offset 0x1f1.
    pub fn boot_header(&self) -> Option<&[u8]> {
        self.boot_header.as_deref()
    }

    /// The segments to load.
    pub fn segments(&self) -> &[Segment] {
        &self.vmlinux.segments
    }

    /// Entry point; a physical link address in most kernels.
    pub fn entry(&self) -> u64 {
        self.vmlinux.entry
    }

    /// The unpacked ELF file.
    pub fn vmlinux(&self) -> &[u8] {
        &self.vmlinux.bytes
    }

    /// The initial bytes at a virtual link address, if the file holds them.
    pub fn read_bytes(&self, vaddr: u64, len: usize) -> Option<&[u8]> {
        self.vmlinux.read(vaddr, len)
    }

    /// The hash by which the kernel names its format of unwind tables.
    pub(crate) fn orc_hash(&self) -> Option<&[u8]> {
        let bounds = ("__start_orc_header", "__stop_orc_header");
        let (_, range) = table(&self.vmlinux, &self.symbols, ".orc_header", bounds.0, bounds.1)?;
        self.vmlinux.bytes.get(range)
    }

    /// All symbols.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The type information, unless the kernel has none and an offset file stands in for it.
    pub fn btf(&self) -> Option<&Btf> {
        self.btf.as_ref()
    }

    /// Where layouts come from: an offset file if one was given, else BTF.
    pub fn layout(&self) -> &dyn Layout {
        match (&self.offsets, &self.btf) {
            (Some(offsets), _) => offsets,
            (None, Some(btf)) => btf,
            (None, None) => &NoLayout,
        }
    }

    /// What the kernel exports to modules.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Virtual link addresses of the code.
    pub fn text(&self) -> Option<Range<u64>> {
        self.vmlinux.text()
    }

    /// The build id, as in `/sys/kernel/notes`.
    pub fn build_id(&self) -> Option<&[u8]> {
        let (_, range) = table(&self.vmlinux, &self.symbols, ".notes", "__start_notes", "__stop_notes")?;
        build_id(self.vmlinux.bytes.get(range)?)
    }

    /// The version string that modules must carry.
    pub fn vermagic(&self) -> Option<&str> {
        let prefix = format!("{} ", self.release);
        memchr::memmem::find_iter(&self.vmlinux.bytes, prefix.as_bytes()).find_map(|at| {
            let text = c_str(&self.vmlinux.bytes, at)?;
            (text.len() < 512 && text.contains("mod_unload")).then_some(text)
        })
    }

    /// Checks that the kernel offers the hooks of a guest.
    ///
    /// # Errors
    /// [`ImageError::NoParavirt`] or [`ImageError::Cfi`].
    pub fn check_guest(&self) -> Result<(), ImageError> {
        self.check_calls()?;
        if self.symbols.find_one("pv_ops").is_none() {
            return Err(ImageError::NoParavirt("the symbol pv_ops"));
        }
        self.layout()
            .field("paravirt_patch_template.cpu.write_idt_entry")
            .map(|_| ())
            .map_err(|_| ImageError::NoParavirt("pv_ops.cpu.write_idt_entry"))
    }

    /// Checks that the kernel may call functions of a prebuilt object.
    ///
    /// # Errors
    /// [`ImageError::Cfi`].
    pub fn check_calls(&self) -> Result<(), ImageError> {
        if self.symbols.any_with_prefix("__cfi_") { Err(ImageError::Cfi) } else { Ok(()) }
    }
}

/// Answers nothing; stands where neither BTF nor an offset file is.
struct NoLayout;

impl Layout for NoLayout {}

/// Unpacks the compressed kernel in a bzImage.
pub type Unpack<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, ImageError>;

type Unpacked = (Vec<u8>, Option<Vec<u8>>, Option<String>);

fn open(bytes: Vec<u8>, unpack: Unpack<'_>) -> Result<Unpacked, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.starts_with(b"\x7fELF") {
        return Ok((bytes, None, None));
    }
    if !payload::is_bzimage(&bytes) {
        return Err(ImageError::NotAKernel);
    }
    let image = payload::parse(&bytes)?;
    let version = image.version.and_then(|text| text.split(' ').next()).filter(|text| !text.is_empty());
    Ok((unpack(image.payload)?, Some(image.header.to_vec()), version.map(String::from)))
}

/// The release out of the line that the kernel prints first.
fn banner(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    memchr::memmem::find_iter(bytes, START).find_map(|at| {
        let text = c_str(bytes, at + START.len())?.split(' ').next()?;
        text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.into())
    })
}

/// Address and file range of a table, by its section or else by the symbols around it.
pub fn table(
    vmlinux: &Vmlinux,
    symbols: &Symbols,
    section: &str,
    start: &str,
    stop: &str,
) -> Option<(u64, Range<usize>)> {
    if let Some(section) = vmlinux.section(section) {
        return Some((section.vaddr, section.file.clone()));
    }
    let (start, stop) = (symbols.find_one(start)?, symbols.find_one(stop)?);
    let len = usize::try_from(stop.checked_sub(start)?).ok().filter(|&len| len > 0)?;
    let segment =
        vmlinux.segments.iter().find(|segment| start.wrapping_sub(segment.vaddr) < segment.memsz)?;
    let offset = segment.file.start.checked_add(usize::try_from(start - segment.vaddr).ok()?)?;
    let end = offset.checked_add(len)?;
    (end <= segment.file.end).then_some((start, offset..end))
}

fn build_id(notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let mut at = 0;
    loop {
        let name_len = u32_at(notes, at)? as usize;
        let desc_len = u32_at(notes, at + 4)? as usize;
        let kind = u32_at(notes, at + 8)?;
        let name = slice(notes, at + 12, name_len)?;
        let desc_at = align_up((at + 12).checked_add(name_len)?, 4)?;
        let desc = slice(notes, desc_at, desc_len)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(desc);
        }
        at = align_up(desc_at.checked_add(desc_len)?, 4)?;
    }
}
