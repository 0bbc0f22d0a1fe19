//! Writes records, independently of the macros that do so in real objects.

use kbind::format::Kind;

#[derive(Clone)]
pub struct Record {
    pub kind: Kind,
    pub flags: u8,
    pub arity: u8,
    pub number: u64,
    pub sizes: [u8; 16],
    pub slot: u64,
    pub target: u64,
    pub exit: u64,
    pub text: String,
}

pub fn record(kind: Kind, text: &str) -> Record {
    let text = text.into();
    Record { kind, flags: 0, arity: 255, number: 0, sizes: [0; 16], slot: 0, target: 0, exit: 0, text }
}

impl Record {
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    pub fn number(self, number: u64) -> Self {
        Self { number, ..self }
    }

    pub fn slot(self, slot: u64) -> Self {
        Self { slot, ..self }
    }

    pub fn target(self, target: u64) -> Self {
        Self { target, ..self }
    }

    pub fn arity(self, arity: u8) -> Self {
        Self { arity, ..self }
    }

    pub fn prototype(self, result: u8, arguments: &[u8]) -> Self {
        let mut sizes = [0; 16];
        sizes[0] = result;
        sizes[1..=arguments.len()].copy_from_slice(arguments);
        Self { arity: arguments.len() as u8, sizes, ..self }
    }

    pub fn write(&self) -> Vec<u8> {
        let length = (64 + self.text.len()).next_multiple_of(8);
        let mut out = b"KBND\x01".to_vec();
        out.extend([self.kind as u8, self.flags, self.arity]);
        out.extend((length as u32).to_le_bytes());
        out.extend((self.text.len() as u32).to_le_bytes());
        out.extend(self.number.to_le_bytes());
        out.extend(self.sizes);
        for pointer in [self.slot, self.target, self.exit] {
            out.extend(pointer.to_le_bytes());
        }
        out.extend(self.text.bytes());
        out.resize(length, 0);
        out
    }
}
