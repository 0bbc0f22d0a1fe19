//! The macros of host objects, which become kernel modules.

/// Exported functions and variables that a host object uses directly, by the symbol itself.
///
/// The tool renames each symbol to the alternative that the kernel exports. An optional one that is
/// missing leads to an undefined instruction, so ask `name::present()` first. Prototypes are compared
/// with BTF; of a variable only the address is taken.
///
/// ```
/// kbind::imports! {
///     pub fn alloc_contig_range(start: u64, end: u64, kind: u32, gfp: u32) -> i32
///         = "alloc_contig_range|alloc_contig_range_noprof";
///     pub optional fn page_is_ram(pfn: u64) -> i32;
///     pub variadic fn printk(fmt: *const u8) -> i32 = "_printk|printk";
///     pub static page_offset_base: u64;
/// }
/// let _: fn() -> bool = page_is_ram::present;
/// ```
#[macro_export]
macro_rules! imports {
    () => {};
    ($(#[$meta:meta])* $vis:vis optional fn $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     $(= $symbol:literal)?; $($rest:tt)*) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[doc = concat!("Kernel function `", $crate::__name!($name $($symbol)?), "`, if exported.")]
            $(#[link_name = $symbol])?
            $vis fn $name($($arg: $type),*) $(-> $result)?;
        }
        $crate::__record!(Import, $crate::format::OPTIONAL, $crate::__name!($name $($symbol)?),
            slot($name::slot()), prototype($crate::__result_size!($($result)?), &[$(size_of::<$type>()),*]));
        $crate::__presence!([$vis] $name);
        $crate::imports!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis optional static $name:ident : $type:ty $(= $symbol:literal)?; $($rest:tt)*) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[doc = concat!("Kernel variable `", $crate::__name!($name $($symbol)?), "`, if exported.")]
            $(#[link_name = $symbol])?
            $vis static $name: $type;
        }
        $crate::__record!(ImportData, $crate::format::OPTIONAL, $crate::__name!($name $($symbol)?),
            slot($name::slot()));
        $crate::__presence!([$vis] $name);
        $crate::imports!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis static $name:ident : $type:ty $(= $symbol:literal)?; $($rest:tt)*) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[doc = concat!("Kernel variable `", $crate::__name!($name $($symbol)?), "`.")]
            $(#[link_name = $symbol])?
            $vis static $name: $type;
        }
        $crate::__record!(ImportData, 0, $crate::__name!($name $($symbol)?));
        $crate::imports!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis variadic fn $name:ident($($arg:ident : $type:ty),+ $(,)?) $(-> $result:ty)?
     $(= $symbol:literal)?; $($rest:tt)*) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[doc = concat!("Kernel function `", $crate::__name!($name $($symbol)?), "`.")]
            $(#[link_name = $symbol])?
            $vis fn $name($($arg: $type),+, ...) $(-> $result)?;
        }
        $crate::__record!(Import, $crate::format::VARIADIC, $crate::__name!($name $($symbol)?));
        $crate::imports!($($rest)*);
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     $(= $symbol:literal)?; $($rest:tt)*) => {
        unsafe extern "C" {
            $(#[$meta])*
            #[doc = concat!("Kernel function `", $crate::__name!($name $($symbol)?), "`.")]
            $(#[link_name = $symbol])?
            $vis fn $name($($arg: $type),*) $(-> $result)?;
        }
        $crate::__record!(Import, 0, $crate::__name!($name $($symbol)?),
            prototype($crate::__result_size!($($result)?), &[$(size_of::<$type>()),*]));
        $crate::imports!($($rest)*);
    };
}

/// The module beside an optional import that tells whether the kernel has it.
#[doc(hidden)]
#[macro_export]
macro_rules! __presence {
    ([$vis:vis] $name:ident) => {
        #[doc = concat!("Whether the kernel exports `", stringify!($name), "`.")]
        $vis mod $name {
            #[used]
            #[unsafe(link_section = ".kbind.slots")]
            static SLOT: $crate::Flag = $crate::Flag::unfilled();

            pub(super) const fn slot() -> *const () {
                (&raw const SLOT).cast()
            }

            /// True when the kernel exports it.
            pub fn present() -> bool {
                SLOT.get()
            }
        }
    };
}

/// Questions about the prototype of a kernel function: has parameter `n` (from 0) this name?
///
/// A parameter that changed its meaning but not its size shows only in its name. The answer is no when
/// the kernel has no such function.
///
/// ```
/// kbind::params! {
///     pub static ACR_TAKES_FLAGS = "alloc_contig_range|alloc_contig_range_noprof" 2 "alloc_flags";
/// }
/// let _: fn() -> bool = || ACR_TAKES_FLAGS.get();
/// ```
#[macro_export]
macro_rules! params {
    () => {};
    ($(#[$meta:meta])* $vis:vis static $name:ident = $function:literal $index:literal $parameter:literal; $($rest:tt)*) => {
        $crate::__slot!($(#[$meta])*
            #[doc = concat!("Parameter ", $index, " of `", $function, "` is `", $parameter, "`.")]
            [$vis static] $name: $crate::Flag; Parameter, 0, concat!($function, "\0", $parameter), number($index));
        $crate::params!($($rest)*);
    };
}

/// Makes the object a kernel module: once per host object.
///
/// ```
/// unsafe extern "C" fn start() -> i32 { 0 }
/// unsafe extern "C" fn stop() {}
/// kbind::module! { name: "example", init: start, exit: stop, license: "GPL", description: "An example" }
/// ```
#[macro_export]
macro_rules! module {
    (name: $name:literal, init: $init:path, exit: $exit:path, license: $license:literal,
     description: $description:literal $(,)?) => {
        $crate::__record!(
            Module,
            0,
            concat!($name, "\0", $license, "\0", $description),
            target($init as unsafe extern "C" fn() -> i32 as *const ()),
            exit($exit as unsafe extern "C" fn() as *const ())
        );
    };
}
