//! The macros of what objects ask for.

/// Emits one record; `$build` are calls on [`crate::format::Record`].
#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    ($kind:ident, $flags:expr, $text:expr $(, $build:ident ( $($value:expr),* ))*) => {
        const _: () = {
            const TEXT: &str = $text;
            #[used]
            #[unsafe(link_section = ".kbind.meta")]
            static RECORD: $crate::format::Record<{ TEXT.len() }> =
                $crate::format::Record::new($crate::format::Kind::$kind, $flags, TEXT)$(.$build($($value),*))*;
        };
    };
}

/// Emits a slot of a type and its record.
#[doc(hidden)]
#[macro_export]
macro_rules! __slot {
    ($(#[$meta:meta])* [$vis:vis static] $name:ident : $type:ty; $kind:ident, $flags:expr, $text:expr
     $(, $build:ident ( $($value:expr),* ))*) => {
        $(#[$meta])*
        #[used]
        #[unsafe(link_section = ".kbind.slots")]
        $vis static $name: $type = <$type>::unfilled();
        $crate::__record!($kind, $flags, $text, slot((&raw const $name).cast()) $(, $build($($value),*))*);
    };
}

/// The explicit name, or else the identifier.
#[doc(hidden)]
#[macro_export]
macro_rules! __name {
    ($ident:ident) => {
        stringify!($ident)
    };
    ($ident:ident $name:literal) => {
        $name
    };
}

/// The size of a result type, 0 for none.
#[doc(hidden)]
#[macro_export]
macro_rules! __result_size {
    () => {
        0
    };
    ($type:ty) => {
        size_of::<$type>()
    };
}

/// Addresses of kernel symbols, exported or not; a host object has one that is not by its distance from one that is: `symbol@export`.
///
/// `symbol+struct.member.path` adds the offset of a member to the address.
///
/// ```
/// kbind::symbols! {
///     /// The interrupt controller that does nothing.
///     pub static APIC_NOOP = "apic_noop";
///     pub static CPU_NUMBER = "cpu_number|pcpu_hot+pcpu_hot.cpu_number";
///     pub static DISABLE_APIC: optional = "disable_apic|apic_is_disabled";
/// }
/// let _: fn() -> u64 = || APIC_NOOP.addr();
/// let _: fn() -> Option<u64> = || DISABLE_APIC.addr();
/// ```
#[macro_export]
macro_rules! symbols {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident : optional = $symbol:literal; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Symbol `", $symbol, "`.")] [$vis static] $name: $crate::OptSymbol;
            Symbol, $crate::format::OPTIONAL, $symbol);
        $crate::symbols!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident = $symbol:literal; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Symbol `", $symbol, "`.")] [$vis static] $name: $crate::Symbol;
            Symbol, 0, $symbol);
        $crate::symbols!($($rest)*);
    };
}

/// Kernel functions, called through slots.
///
/// The name of the symbol is the identifier unless another is given. Arity and sizes are compared with
/// the BTF prototype. An optional function is a function that returns the pointer, if there is one.
/// A variadic function passes its first argument as the fixed one and the rest as variable ones.
/// Where kernels have several prototypes of a function, each is an overload: an optional function that is absent
/// where another one fits. A kernel for which none fits is refused.
///
/// ```
/// kbind::functions! {
///     pub fn register_console(con: *mut u8);
///     pub fn reserve(base: u64, size: u64) -> i32 = "memblock_reserve|__memblock_reserve";
///     pub optional fn apic_install_driver(driver: *mut u8);
///     pub variadic fn printk(fmt: *const u8) -> i32 = "_printk|printk";
///     pub overload fn add_processor(apic_id: i32) -> i32 = "generic_processor_info";
///     pub overload fn add_processor_of_version(apic_id: i32, version: i32) -> i32 = "generic_processor_info";
/// }
/// let _: unsafe fn(*mut u8) = register_console;
/// let _: fn() -> Option<unsafe extern "C" fn(*mut u8)> = apic_install_driver;
/// let _: unsafe fn(*const u8) -> i32 = printk;
/// ```
#[macro_export]
macro_rules! functions {
    () => {};
    ($(#[$meta:meta])* $vis:vis optional fn $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     $(= $symbol:literal)?; $($rest:tt)*) => {
        $crate::__optional_function!([$crate::format::OPTIONAL] $(#[$meta])* $vis $name($($type),*) [$($result)?]
            $crate::__name!($name $($symbol)?));
        $crate::functions!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis overload fn $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     = $symbol:literal; $($rest:tt)*) => {
        $crate::__optional_function!([$crate::format::OPTIONAL | $crate::format::OVERLOAD] $(#[$meta])* $vis
            $name($($type),*) [$($result)?] $symbol);
        $crate::functions!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis variadic fn $name:ident($first:ident : $first_type:ty $(, $arg:ident : $type:ty)* $(,)?)
     $(-> $result:ty)? $(= $symbol:literal)?; $($rest:tt)*) => {
        $(#[$meta])*
        #[doc = concat!("Calls the variadic kernel function `", $crate::__name!($name $($symbol)?), "`.")]
        ///
        /// # Safety
        /// As the kernel function asks.
        #[inline]
        $vis unsafe fn $name($first: $first_type $(, $arg: $type)*) $(-> $result)? {
            $crate::__slot!([static] SLOT: $crate::Symbol; Function, $crate::format::VARIADIC,
                $crate::__name!($name $($symbol)?));
            // SAFETY: the loader found a variadic function at the address; the caller vouches for the arguments.
            unsafe {
                core::mem::transmute::<u64, unsafe extern "C" fn($first_type, ...) $(-> $result)?>(SLOT.addr())(
                    $first $(, $arg)*
                )
            }
        }
        $crate::functions!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     $(= $symbol:literal)?; $($rest:tt)*) => {
        $(#[$meta])*
        #[doc = concat!("Calls the kernel function `", $crate::__name!($name $($symbol)?), "`.")]
        ///
        /// # Safety
        /// As the kernel function asks.
        #[inline]
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name($($arg: $type),*) $(-> $result)? {
            $crate::__slot!([static] SLOT: $crate::Symbol; Function, 0, $crate::__name!($name $($symbol)?),
                prototype($crate::__result_size!($($result)?), &[$(size_of::<$type>()),*]));
            // SAFETY: the loader found a function of this prototype; the caller vouches for the arguments.
            unsafe {
                core::mem::transmute::<u64, unsafe extern "C" fn($($type),*) $(-> $result)?>(SLOT.addr())($($arg),*)
            }
        }
        $crate::functions!($($rest)*);
    };
}

/// A function that returns the pointer to one of the kernel, if there is one.
#[doc(hidden)]
#[macro_export]
macro_rules! __optional_function {
    ([$flags:expr] $(#[$meta:meta])* $vis:vis $name:ident($($type:ty),*) [$($result:ty)?] $symbol:expr) => {
        $(#[$meta])*
        #[doc = concat!("Kernel function `", $symbol, "`, if this kernel has it.")]
        $vis fn $name() -> Option<unsafe extern "C" fn($($type),*) $(-> $result)?> {
            $crate::__slot!([static] SLOT: $crate::OptSymbol; Function, $flags, $symbol,
                prototype($crate::__result_size!($($result)?), &[$(size_of::<$type>()),*]));
            // SAFETY: the loader found a function of this prototype at the address.
            SLOT.addr().map(|address| unsafe {
                core::mem::transmute::<u64, unsafe extern "C" fn($($type),*) $(-> $result)?>(address)
            })
        }
    };
}

/// Fields of kernel structures, typed; the loader refuses a field of another size.
///
/// Members of anonymous structures and unions are found by their own name. Of an array the type may be
/// that of one element: the field is then the first one. `()` stands for a field whose place alone matters.
///
/// `takes n` is for a pointer to a function, which must have that many arguments. Where kernels differ in that, each number is an
/// `overload`: a field that is absent where another one fits.
///
/// ```
/// kbind::fields! {
///     pub static CON_FLAGS: u16 = "console.flags";
///     pub static APIC_EOI: optional u64 = "apic.eoi";
///     pub static CAPABILITIES: u32 = "cpuinfo_x86.x86_capability";
///     pub static NOTIFIER_CALL: u64 = "notifier_block.notifier_call" takes 3;
///     pub static FIND_VQS: overload u64 = "virtio_config_ops.find_vqs" takes 5;
/// }
/// let _: fn(*const u8) -> u16 = |console| unsafe { CON_FLAGS.read(console) };
/// let _: fn(*mut u8) -> bool = |apic| unsafe { APIC_EOI.write_if(apic, 0) };
/// ```
#[macro_export]
macro_rules! fields {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident : optional $type:ty = $path:literal $(takes $arity:literal)?;
     $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Field `", $path, "`.")] [$vis static] $name: $crate::OptField<$type>;
            Field, $crate::format::OPTIONAL, $path, number(size_of::<$type>() as u64) $(, arity($arity))?);
        $crate::fields!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident : overload $type:ty = $path:literal takes $arity:literal;
     $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Field `", $path, "`.")] [$vis static] $name: $crate::OptField<$type>;
            Field, $crate::format::OVERLOAD, $path, number(size_of::<$type>() as u64), arity($arity));
        $crate::fields!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident : $type:ty = $path:literal $(takes $arity:literal)?; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Field `", $path, "`.")] [$vis static] $name: $crate::Field<$type>;
            Field, 0, $path, number(size_of::<$type>() as u64) $(, arity($arity))?);
        $crate::fields!($($rest)*);
    };
}

/// Sizes of kernel structures with the room that the object has for them, in bytes.
///
/// ```
/// kbind::sizes! {
///     pub static APIC_SIZE = "apic" <= 512;
///     pub static INFO_SIZE: optional = "virtqueue_info" <= 64;
/// }
/// let _: fn() -> usize = || APIC_SIZE.get();
/// let _: fn() -> Option<usize> = || INFO_SIZE.get();
/// ```
#[macro_export]
macro_rules! sizes {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident : optional = $structure:literal <= $room:expr; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Size of `", $structure, "`.")] [$vis static] $name: $crate::OptSize;
            Size, $crate::format::OPTIONAL, $structure, number($room as u64));
        $crate::sizes!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident = $structure:literal <= $room:expr; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Size of `", $structure, "`.")] [$vis static] $name: $crate::Size;
            Size, 0, $structure, number($room as u64));
        $crate::sizes!($($rest)*);
    };
}

/// Values of kernel enumerators.
///
/// ```
/// kbind::enums! {
///     pub static HRTIMER_MODE_REL = "HRTIMER_MODE_REL";
///     pub static GFP_HIGHMEM: optional = "___GFP_HIGHMEM_BIT";
/// }
/// let _: fn() -> u64 = || GFP_HIGHMEM.get().map_or(2, |bit| 1 << bit);
/// ```
#[macro_export]
macro_rules! enums {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident : optional = $value:literal; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Enumerator `", $value, "`.")] [$vis static] $name: $crate::OptEnumerator;
            Enumerator, $crate::format::OPTIONAL, $value);
        $crate::enums!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident = $value:literal; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])* #[doc = concat!("Enumerator `", $value, "`.")] [$vis static] $name: $crate::Enumerator;
            Enumerator, 0, $value);
        $crate::enums!($($rest)*);
    };
}

/// Symbols of kernel modules, which the object finds by itself while the kernel runs.
///
/// ```
/// kbind::late! {
///     pub static VRING_INTERRUPT = "vring_interrupt";
/// }
/// VRING_INTERRUPT.set(0x1000);
/// assert_eq!(VRING_INTERRUPT.addr(), Some(0x1000));
/// ```
#[macro_export]
macro_rules! late {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident = $symbol:literal; $($rest:tt)*) => {
        $(#[$meta])*
        #[doc = concat!("Symbol `", $symbol, "` of a module.")]
        $vis static $name: $crate::Late = $crate::Late::unfilled();
        $crate::__record!(Late, 0, $symbol);
        $crate::late!($($rest)*);
    };
}
