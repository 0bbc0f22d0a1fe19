//! The record format, shared by the objects (which emit it) and `kbind-resolve` (which reads it).
//!
//! `README.md` of this crate spells the byte layout out.

/// Section with the records. Never loaded into a kernel.
pub const META_SECTION: &str = ".kbind.meta";
/// Section with the eight-byte values that the loader fills in.
pub const SLOT_SECTION: &str = ".kbind.slots";
/// First word of each record, `"KBND"` in little endian.
pub const MAGIC: u32 = 0x444e_424b;
/// Version of the layout of [`Record`].
pub const VERSION: u8 = 1;
/// Value of a slot that is not filled, or whose optional target does not exist in this kernel.
pub const ABSENT: u64 = u64::MAX;
/// Arity that stands for "not checked".
pub const ANY_ARITY: u8 = 0xff;
/// Most arguments whose sizes a record holds.
pub const MAX_ARGUMENTS: usize = 15;
/// Bytes of a record before its text.
pub const HEADER: usize = 64;
/// Between the strings in the text of a record.
pub const SEPARATOR: char = '\0';

/// The target may be missing.
pub const OPTIONAL: u8 = 1;
/// The function takes a variable argument list.
pub const VARIADIC: u8 = 2;
/// The record holds a list of old values to compare with (hooks).
pub const CHECKED: u8 = 4;
/// One of several records of this name: it is absent where the kernel's prototype is that of another one.
pub const OVERLOAD: u8 = 8;

/// What a record asks for. The strings are those of its text, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Address of a symbol, plus a field offset. Text: name.
    Symbol = 1,
    /// Address of a function with a prototype. Text: name.
    Function = 2,
    /// Byte offset of a field, `number` = its size. Text: `struct.member.path`.
    Field = 3,
    /// Size of a structure, `number` = the largest that fits. Text: structure.
    Size = 4,
    /// Value of an enumerator. Text: name.
    Enumerator = 5,
    /// Data word that is replaced by the address in `target`. Text: place, old values.
    HookFunction = 6,
    /// Data word that is replaced by the address of a kernel symbol. Text: place, old values, symbol.
    HookSymbol = 7,
    /// Module symbol that the object looks up by itself. Text: name.
    Late = 8,
    /// Function that the object calls directly. Text: name.
    Import = 9,
    /// Variable that the object refers to directly. Text: name.
    ImportData = 10,
    /// 1 when parameter `number` of a function has a name. Text: function, parameter.
    Parameter = 11,
    /// The module itself, `target` = init, `exit` = exit. Text: name, license, description.
    Module = 12,
    /// Data word that is replaced by `number`. Text: place, old values.
    HookValue = 13,
    /// Each `pause` instruction between two symbols becomes the software interrupt `number`. Text: start, end.
    Waits = 14,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Symbol,
            2 => Self::Function,
            3 => Self::Field,
            4 => Self::Size,
            5 => Self::Enumerator,
            6 => Self::HookFunction,
            7 => Self::HookSymbol,
            8 => Self::Late,
            9 => Self::Import,
            10 => Self::ImportData,
            11 => Self::Parameter,
            12 => Self::Module,
            13 => Self::HookValue,
            14 => Self::Waits,
            _ => return None,
        })
    }
}

/// An address inside the object, or null.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Address(*const ());

// SAFETY: an address is only a number here; nothing reads through it.
unsafe impl Sync for Address {}

impl Address {
    /// No address.
    pub const NULL: Self = Self(core::ptr::null());

    /// The address of a function or static.
    pub const fn new(place: *const ()) -> Self {
        Self(place)
    }
}

/// One record: a header of [`HEADER`] bytes and the text.
#[repr(C, align(8))]
pub struct Record<const N: usize> {
    magic: u32,
    version: u8,
    kind: u8,
    flags: u8,
    arity: u8,
    length: u32,
    text_length: u32,
    number: u64,
    /// Size of the result, then of each argument.
    sizes: [u8; 1 + MAX_ARGUMENTS],
    slot: Address,
    target: Address,
    exit: Address,
    text: [u8; N],
}

impl<const N: usize> Record<N> {
    /// A record of `kind`; `text` must be `N` bytes long.
    pub const fn new(kind: Kind, flags: u8, text: &str) -> Self {
        assert!(text.len() == N, "the text must fill the record");
        let mut bytes = [0; N];
        bytes.copy_from_slice(text.as_bytes());
        Self {
            magic: MAGIC,
            version: VERSION,
            kind: kind as u8,
            flags,
            arity: ANY_ARITY,
            length: size_of::<Self>() as u32,
            text_length: N as u32,
            number: 0,
            sizes: [0; 1 + MAX_ARGUMENTS],
            slot: Address::NULL,
            target: Address::NULL,
            exit: Address::NULL,
            text: bytes,
        }
    }

    /// Sets the slot that receives the value.
    pub const fn slot(mut self, slot: *const ()) -> Self {
        self.slot = Address::new(slot);
        self
    }

    /// Sets the function that a hook installs, or the init function.
    pub const fn target(mut self, target: *const ()) -> Self {
        self.target = Address::new(target);
        self
    }

    /// Sets the exit function.
    pub const fn exit(mut self, exit: *const ()) -> Self {
        self.exit = Address::new(exit);
        self
    }

    /// Sets the number whose meaning depends on the kind.
    pub const fn number(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Sets the arity without argument sizes.
    pub const fn arity(mut self, arity: u8) -> Self {
        self.arity = arity;
        self
    }

    /// Sets arity and sizes of a prototype.
    pub const fn prototype(mut self, result: usize, arguments: &[usize]) -> Self {
        assert!(arguments.len() <= MAX_ARGUMENTS, "too many arguments");
        self.arity = arguments.len() as u8;
        self.sizes[0] = byte(result);
        let mut index = 0;
        while index < arguments.len() {
            self.sizes[1 + index] = byte(arguments[index]);
            index += 1;
        }
        self
    }
}

const fn byte(size: usize) -> u8 {
    assert!(size < 256, "an argument of 256 bytes or more");
    size as u8
}

const _: () = assert!(core::mem::offset_of!(Record<0>, text) == HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    static SLOT: u64 = 0;

    fn bytes<const N: usize>(record: &Record<N>) -> &[u8] {
        // SAFETY: the record is plain data without padding before its text, and padding behind is not compared.
        unsafe { core::slice::from_raw_parts((&raw const *record).cast(), HEADER + N) }
    }

    #[test]
    fn the_layout_is_that_of_the_readme() {
        static RECORD: Record<8> = Record::new(Kind::Function, OPTIONAL, "do_thing")
            .slot((&raw const SLOT).cast())
            .number(0x1122)
            .prototype(4, &[8, 2]);
        let record = bytes(&RECORD);
        assert_eq!(&record[..8], b"KBND\x01\x02\x01\x02");
        assert_eq!(record[8..16], [72, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(record[16..24], 0x1122u64.to_le_bytes());
        assert_eq!(record[24..40], [4, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(record[40..48], (&raw const SLOT as u64).to_le_bytes());
        assert_eq!(record[48..64], [0; 16]);
        assert_eq!(&record[64..], b"do_thing");
    }

    #[test]
    fn kinds_have_their_numbers() {
        for number in 0..=255 {
            assert!(Kind::from_u8(number).is_none_or(|kind| kind as u8 == number));
        }
        assert_eq!(Kind::from_u8(14), Some(Kind::Waits));
        assert_eq!(Kind::from_u8(15), None);
    }
}
