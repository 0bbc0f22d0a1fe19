//! Binds what the host object asks to what the kernel exports and describes.

use super::read::{HostObject, Located, Place as SymbolPlace};
use crate::answer::{self, Answer, Failure};
use crate::error::{LinkError, Problem};
use crate::exports::Export;
use crate::image::KernelImage;
use crate::records::{EXIT, Record, SLOT, TARGET};
use kbind::format::{ABSENT, Kind};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What compilers call without a declaration.
const RUNTIME: [&str; 5] = ["memcpy", "memset", "memmove", "memcmp", "bcmp"];
/// Prefix of the thunks that a compiler branches through.
const THUNKS: &str = "__x86_";
/// Functions in assembly, which BTF may not describe.
const UNDESCRIBED: [&str; 2] = ["_copy_from_user", "_copy_to_user"];
pub const THIS_MODULE: &str = "__this_module";

/// What an undefined symbol of the object becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The exported symbol of this name.
    Export(String),
    /// An optional one that the kernel lacks: an undefined instruction.
    Stub,
    /// The `struct module` itself.
    ThisModule,
}

/// What a slot receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    /// Address of an export plus an offset, which may lead back.
    Export(String, u64),
}

/// Section and offset in the object.
pub type Location = (usize, u64);

pub struct Module {
    pub name: String,
    pub license: String,
    pub description: String,
    pub init: Location,
    pub exit: Location,
}

pub struct Bound {
    pub module: Module,
    /// By symbol number of the object.
    pub symbols: HashMap<usize, Binding>,
    pub slots: Vec<(Location, Value)>,
    /// All exports in use.
    pub exports: BTreeMap<String, Export>,
    pub namespaces: BTreeSet<String>,
}

struct Binder<'a> {
    image: &'a KernelImage,
    host: &'a HostObject,
    exports: BTreeMap<String, Export>,
    slots: Vec<(Location, Value)>,
    problems: Vec<Problem>,
}

/// # Errors
/// [`LinkError::Mismatch`] lists all that does not fit.
pub fn bind(image: &KernelImage, host: &HostObject) -> Result<Bound, LinkError> {
    let module = module(host).map_err(LinkError::BadObject)?;
    let mut binder =
        Binder { image, host, exports: BTreeMap::new(), slots: Vec::new(), problems: Vec::new() };
    binder.records().map_err(LinkError::BadObject)?;
    let symbols = binder.undefined();
    let namespaces = binder.check_use(&module.license);
    let Binder { exports, slots, problems, .. } = binder;
    if problems.is_empty() {
        return Ok(Bound { module, symbols, slots, exports, namespaces });
    }
    Err(LinkError::Mismatch { release: image.release().into(), problems })
}

fn module(host: &HostObject) -> Result<Module, String> {
    let mut all = host.records.iter().filter(|located| located.record.kind == Kind::Module);
    let (Some(located), None) = (all.next(), all.next()) else {
        return Err("the host object is not exactly one module".into());
    };
    let function = |field, what: &str| {
        host.pointer(located, field).ok_or_else(|| format!("the host object has no {what} function"))
    };
    let text = |index| located.record.string(index).to_string();
    Ok(Module {
        name: text(0),
        license: text(1),
        description: text(2),
        init: function(TARGET, "init")?,
        exit: function(EXIT, "exit")?,
    })
}

impl Binder<'_> {
    fn problem(&mut self, slot: &str, failure: Failure) {
        self.problems.push(Problem { slot: slot.into(), reason: failure.reason() });
    }

    fn export(&self, name: &str) -> Answer<String> {
        match self.image.exports().get(name) {
            Some(_) => Ok(name.into()),
            None => Err(Failure::Missing(format!("this kernel does not export {name}"))),
        }
    }

    /// An export, or what is beside one: `symbol@export`. The distance from it, in bytes.
    fn near(&self, text: &str) -> Answer<(String, u64)> {
        let Some((name, export)) = text.split_once('@') else { return Ok((self.export(text)?, 0)) };
        let export = self.export(export)?;
        let address = |name| answer::symbol(self.image.symbols(), name);
        let distance = address(name)?.wrapping_sub(address(&export)?);
        Ok((export, distance))
    }

    fn used(&mut self, name: &str) {
        if let Some(export) = self.image.exports().get(name) {
            self.exports.insert(name.into(), export.clone());
        }
    }

    fn records(&mut self) -> Result<(), String> {
        let host = self.host;
        for located in &host.records {
            let record = &located.record;
            match self.answer(record) {
                Ok(Some(value)) => self.fill(located, value)?,
                Ok(None) => {}
                Err(Failure::Missing(_)) if record.optional() => {}
                Err(failure) => self.problem(record.name(), failure),
            }
        }
        Ok(())
    }

    fn answer(&self, record: &Record) -> Answer<Option<Value>> {
        let layout = self.image.layout();
        let number = match record.kind {
            Kind::Symbol | Kind::Function => {
                let place = answer::first_place(record.name(), layout, |name| self.near(name))?;
                if record.kind == Kind::Function {
                    self.prototype(record, place.name)?;
                }
                let (export, distance) = place.symbol;
                return Ok(Some(Value::Export(export, distance.wrapping_add(place.offset))));
            }
            Kind::Field => answer::field(record, layout)?,
            Kind::Size => answer::size(record, layout)?,
            Kind::Enumerator => answer::enumerator(record, layout)?,
            Kind::Parameter => answer::parameter(record, layout),
            Kind::Import | Kind::ImportData if record.optional() => {
                answer::first(record.name(), |name| self.export(name)).is_ok().into()
            }
            Kind::Import | Kind::ImportData | Kind::Module => return Ok(None),
            Kind::HookFunction | Kind::HookSymbol | Kind::HookValue | Kind::Waits | Kind::Late => {
                return Err(Failure::Wrong("only a guest object can ask for this".into()));
            }
        };
        if number == ABSENT {
            return Err(Failure::Wrong("its value is the one that stands for absence".into()));
        }
        Ok(Some(Value::Number(number)))
    }

    fn fill(&mut self, located: &Located, value: Value) -> Result<(), String> {
        let slot = self.host.pointer(located, SLOT);
        let slot = slot.ok_or_else(|| format!("{} has no slot", located.record.name()))?;
        if let Value::Export(name, _) = &value {
            self.used(&name.clone());
        }
        self.slots.push((slot, value));
        Ok(())
    }

    /// A function that BTF does not describe passes only when it is a known one.
    fn prototype(&self, record: &Record, name: &str) -> Answer<()> {
        if answer::prototype(record, name, self.image.layout())? || UNDESCRIBED.contains(&name) {
            return Ok(());
        }
        Err(Failure::Wrong(format!(
            "the BTF of this kernel does not describe {name}, so that it cannot be checked"
        )))
    }

    fn undefined(&mut self) -> HashMap<usize, Binding> {
        let host = self.host;
        let mut bindings = HashMap::new();
        let undefined = host.symbols.iter().enumerate();
        for (index, symbol) in undefined.filter(|(_, symbol)| symbol.place == SymbolPlace::Undefined) {
            match self.binding(&symbol.name) {
                Ok(binding) => {
                    if let Binding::Export(name) = &binding {
                        self.used(&name.clone());
                    }
                    bindings.insert(index, binding);
                }
                Err(failure) => self.problem(&symbol.name, failure),
            }
        }
        bindings
    }

    fn binding(&self, name: &str) -> Answer<Binding> {
        if name == THIS_MODULE {
            return Ok(Binding::ThisModule);
        }
        let import = |located: &&Located| {
            matches!(located.record.kind, Kind::Import | Kind::ImportData) && located.record.name() == name
        };
        let Some(Located { record, .. }) = self.host.records.iter().find(import) else {
            if RUNTIME.contains(&name) || name.starts_with(THUNKS) {
                return self.export(name).map(Binding::Export);
            }
            return Err(Failure::Wrong("the host object uses it without declaring it".into()));
        };
        match answer::first(name, |name| self.export(name)) {
            Ok(export) => {
                if record.kind == Kind::Import {
                    self.prototype(record, &export)?;
                }
                Ok(Binding::Export(export))
            }
            Err(Failure::Missing(_)) if record.optional() => Ok(Binding::Stub),
            Err(failure) => Err(failure),
        }
    }

    /// Checks licence and namespaces; returns the namespaces to import.
    fn check_use(&mut self, license: &str) -> BTreeSet<String> {
        let mut namespaces = BTreeSet::new();
        for (name, export) in &self.exports {
            let mut problem = |reason: String| self.problems.push(Problem { slot: name.clone(), reason });
            if export.gpl && !license.contains("GPL") {
                problem(format!("only modules under the GPL may use it, this one is under {license}"));
            }
            match &export.namespace {
                Some(namespace) if namespace.starts_with("module:") => {
                    problem(format!("only {} may use it", namespace.trim_start_matches("module:")));
                }
                Some(namespace) => {
                    namespaces.insert(namespace.clone());
                }
                None => {}
            }
        }
        namespaces
    }
}
