//! Answers to single records, the same for both kinds of object.

use crate::kallsyms::Symbols;
use crate::layout::{Layout, LayoutError, Prototype};
use crate::records::Record;

/// Why a record has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel does not have it: fine for an optional one.
    Missing(String),
    /// The kernel has it with another prototype: fine for an overload of which another one fits.
    Other(String),
    /// The kernel has it in a way that the object does not expect.
    Wrong(String),
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Missing(_) => Self::Missing(error.to_string()),
            _ => Self::Wrong(error.to_string()),
        }
    }
}

impl Failure {
    pub fn reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Other(reason) | Self::Wrong(reason) => reason,
        }
    }
}

pub type Answer<T> = Result<T, Failure>;

/// The address of the one symbol of the kernel that has this name.
pub fn symbol(symbols: &Symbols, name: &str) -> Answer<u64> {
    symbols.find_one(name).ok_or_else(|| match symbols.addresses(name).len() {
        0 => Failure::Missing(format!("this kernel has no symbol {name}")),
        count => Failure::Wrong(format!("{count} symbols of this kernel are named {name}")),
    })
}

/// The first alternative that the kernel has.
pub fn first<T>(names: &str, find: impl Fn(&str) -> Answer<T>) -> Answer<T> {
    let mut reasons = Vec::new();
    for name in names.split('|') {
        match find(name) {
            Err(Failure::Missing(reason)) => reasons.push(reason),
            answer => return answer,
        }
    }
    Err(Failure::Missing(reasons.join("; ")))
}

/// A resolved `symbol+struct.path` or `symbol+bytes`.
pub struct Place<'a, T> {
    pub symbol: T,
    /// Name of the symbol.
    pub name: &'a str,
    /// The path that follows the `+`.
    pub path: Option<&'a str>,
    /// Offset of the member, bytes.
    pub offset: u64,
}

/// Resolves one alternative.
pub fn place<'a, T>(
    text: &'a str,
    layout: &dyn Layout,
    find: impl Fn(&str) -> Answer<T>,
) -> Answer<Place<'a, T>> {
    let (name, path) = match text.split_once('+') {
        Some((name, path)) => (name, Some(path)),
        None => (text, None),
    };
    let symbol = find(name)?;
    let offset = match path {
        Some(path) => match path.parse() {
            Ok(bytes) => bytes,
            Err(_) => layout.field(path)?.offset,
        },
        None => 0,
    };
    let path = path.filter(|path| path.parse::<u64>().is_err());
    Ok(Place { symbol, name, path, offset })
}

/// As [`place`], over alternatives.
pub fn first_place<'a, T>(
    names: &'a str,
    layout: &dyn Layout,
    find: impl Fn(&str) -> Answer<T>,
) -> Answer<Place<'a, T>> {
    let mut reasons = Vec::new();
    for name in names.split('|') {
        match place(name, layout, &find) {
            Err(Failure::Missing(reason)) => reasons.push(reason),
            answer => return answer,
        }
    }
    Err(Failure::Missing(reasons.join("; ")))
}

/// Offset of a field of the expected size.
pub fn field(record: &Record, layout: &dyn Layout) -> Answer<u64> {
    let (path, field) = first(record.name(), |path| Ok((path.to_owned(), layout.field(path)?)))?;
    arity(record, Some(&path), layout)?;
    // A record without a size asks only for the place; one of an element's size for the first element.
    if [0, field.size, field.element].contains(&record.number) {
        return Ok(field.offset);
    }
    Err(Failure::Wrong(format!("{} bytes long in this kernel, {} expected", field.size, record.number)))
}

/// Size of a structure for which there is room.
pub fn size(record: &Record, layout: &dyn Layout) -> Answer<u64> {
    let size = first(record.name(), |structure| Ok(layout.size_of(structure)?))?;
    if size <= record.number {
        return Ok(size);
    }
    Err(Failure::Wrong(format!("{size} bytes long in this kernel, {} at most fit", record.number)))
}

pub fn enumerator(record: &Record, layout: &dyn Layout) -> Answer<u64> {
    first(record.name(), |name| {
        layout
            .enumerator(name)
            .ok_or_else(|| Failure::Missing(format!("this kernel has no enumerator {name}")))
    })
}

/// 1 when the parameter of the first known function has the name.
pub fn parameter(record: &Record, layout: &dyn Layout) -> u64 {
    let known = record.name().split('|').map(|name| layout.functions(name)).find(|known| !known.is_empty());
    let Ok(index) = usize::try_from(record.number) else { return 0 };
    let has = |prototype: &Prototype| {
        prototype.parameters.get(index).is_some_and(|(name, _)| name == record.string(1))
    };
    known.is_some_and(|known| known.iter().any(has)).into()
}

/// Compares a function with what the object calls; `false` when the kernel tells nothing about it.
pub fn prototype(record: &Record, name: &str, layout: &dyn Layout) -> Answer<bool> {
    let known = layout.functions(name);
    if known.is_empty() {
        return Ok(false);
    }
    if known.iter().any(|prototype| fits(record, prototype)) {
        return Ok(true);
    }
    let kernel: Vec<_> = known.iter().map(describe).collect();
    Err(Failure::Other(format!(
        "the kernel has {name}{}, the object calls {}",
        kernel.join(" and "),
        call(record)
    )))
}

fn fits(record: &Record, prototype: &Prototype) -> bool {
    if record.variadic() {
        return prototype.variadic;
    }
    let Some(arity) = record.arity else { return true };
    let sizes: Vec<u64> = prototype.parameters.iter().map(|&(_, size)| size).collect();
    // A result that nobody looks at may be there.
    let result = record.result_size() == 0 || record.result_size() == prototype.result;
    !prototype.variadic && sizes.len() == usize::from(arity) && sizes == record.argument_sizes() && result
}

fn describe(prototype: &Prototype) -> String {
    let mut parameters: Vec<_> =
        prototype.parameters.iter().map(|(name, size)| format!("{name}: {size}")).collect();
    if prototype.variadic {
        parameters.push("...".into());
    }
    format!("({}) -> {} [sizes in bytes]", parameters.join(", "), prototype.result)
}

fn call(record: &Record) -> String {
    if record.variadic() {
        return "it with a variable argument list".into();
    }
    let sizes: Vec<_> = record.argument_sizes().iter().map(u64::to_string).collect();
    format!("({}) -> {}", sizes.join(", "), record.result_size())
}

/// Compares the pointer to a function that a hook replaces, or that the object writes, with the arity of the object's function.
pub fn arity(record: &Record, path: Option<&str>, layout: &dyn Layout) -> Answer<()> {
    let (Some(arity), Some(path)) = (record.arity, path) else { return Ok(()) };
    let Some(prototype) = layout.member_function(path)? else { return Ok(()) };
    let takes = prototype.parameters.len();
    if takes == usize::from(arity) && !prototype.variadic {
        return Ok(());
    }
    Err(Failure::Other(format!("it is called with {takes} arguments in this kernel, {arity} expected")))
}
