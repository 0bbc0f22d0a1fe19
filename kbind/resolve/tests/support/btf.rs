//! Writes the BPF Type Format.

use std::collections::HashMap;

pub type Id = u32;

pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    next: Id,
}

/// Name, type and bit offset of a member.
pub type Member<'a> = (&'a str, Id, u32);

impl Btf {
    pub fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], known: HashMap::new(), next: 1 }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let strings = &mut self.strings;
        *self.known.entry(text.into()).or_insert_with(|| {
            let at = strings.len() as u32;
            strings.extend(text.bytes().chain([0]));
            at
        })
    }

    fn add(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        size_or_type: u32,
        elements: &[[u32; 3]],
        words: usize,
    ) -> Id {
        let name = self.string(name);
        let info = kind << 24 | u32::from(flag) << 31 | elements.len() as u32;
        for word in [name, info, size_or_type] {
            self.types.extend(word.to_le_bytes());
        }
        for element in elements {
            self.types.extend(element[..words].iter().flat_map(|word| word.to_le_bytes()));
        }
        self.next += 1;
        self.next - 1
    }

    pub fn int(&mut self, name: &str, size: u32) -> Id {
        let id = self.add(name, 1, false, size, &[], 0);
        self.types.extend((size * 8).to_le_bytes());
        id
    }

    pub fn pointer(&mut self, to: Id) -> Id {
        self.add("", 2, false, to, &[], 0)
    }

    pub fn array(&mut self, element: Id, count: u32) -> Id {
        let id = self.add("", 3, false, 0, &[], 0);
        for word in [element, element, count] {
            self.types.extend(word.to_le_bytes());
        }
        id
    }

    pub fn structure(&mut self, name: &str, size: u32, members: &[Member]) -> Id {
        self.composite(4, name, size, members, false)
    }

    pub fn union(&mut self, name: &str, size: u32, members: &[Member]) -> Id {
        self.composite(5, name, size, members, false)
    }

    /// A structure with bit fields: the offsets carry the number of bits in their upper byte.
    pub fn bit_structure(&mut self, name: &str, size: u32, members: &[Member]) -> Id {
        self.composite(4, name, size, members, true)
    }

    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[Member], bits: bool) -> Id {
        let members: Vec<_> = members.iter().map(|&(name, ty, at)| [self.string(name), ty, at]).collect();
        self.add(name, kind, bits, size, &members, 3)
    }

    pub fn enumeration(&mut self, name: &str, values: &[(&str, i32)]) -> Id {
        let signed = values.iter().any(|&(_, value)| value < 0);
        let values: Vec<_> =
            values.iter().map(|&(name, value)| [self.string(name), value as u32, 0]).collect();
        self.add(name, 6, signed, 4, &values, 2)
    }

    pub fn enumeration64(&mut self, name: &str, values: &[(&str, u64)]) -> Id {
        let values: Vec<_> = values
            .iter()
            .map(|&(name, value)| [self.string(name), value as u32, (value >> 32) as u32])
            .collect();
        self.add(name, 19, false, 8, &values, 3)
    }

    pub fn typedef(&mut self, name: &str, of: Id) -> Id {
        self.add(name, 8, false, of, &[], 0)
    }

    pub fn constant(&mut self, of: Id) -> Id {
        self.add("", 10, false, of, &[], 0)
    }

    /// A parameter of type 0 is the variable argument list.
    pub fn prototype(&mut self, result: Id, parameters: &[(&str, Id)]) -> Id {
        let parameters: Vec<_> = parameters.iter().map(|&(name, ty)| [self.string(name), ty, 0]).collect();
        self.add("", 13, false, result, &parameters, 2)
    }

    pub fn function(&mut self, name: &str, result: Id, parameters: &[(&str, Id)]) -> Id {
        let prototype = self.prototype(result, parameters);
        self.add(name, 12, false, prototype, &[], 0)
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }
}
