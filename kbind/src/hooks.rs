//! The macros of what the loader writes into a guest kernel.

/// Data words of the kernel that the loader replaces before the kernel starts.
///
/// * `"place" = function: arity` installs a function of the object. The member at the place must be a pointer
///   to a function with that many arguments.
/// * `"place" := symbol "name"` installs the address of a kernel symbol.
/// * `"place" := value number` installs a number; the place may also be `symbol+bytes` then.
///
/// `was "a|b|0"` names the values that the word may hold before; a number is never installed without.
/// `NAME =>` in front makes a [`Symbol`](crate::Symbol) (an [`OptSymbol`](crate::OptSymbol) for an optional
/// hook) that holds the old word, to chain to it. Where kernels call a place with different numbers of arguments,
/// each function is an `overload`: that which fits is installed, and only its old word is filled in.
///
/// ```
/// extern "C" fn timer_init() {}
/// extern "C" fn io_delay() {}
/// extern "C" fn read_msr(msr: u32) -> u64 {
///     OLD_READ_MSR.addr() + u64::from(msr)
/// }
/// kbind::hooks! {
///     "x86_init+x86_init_ops.timers.timer_init" = timer_init: 0, was "hpet_time_init";
///     optional "pv_ops+paravirt_patch_template.cpu.io_delay" = io_delay: 0;
///     OLD_READ_MSR => "pv_ops+paravirt_patch_template.cpu.read_msr" = read_msr: 1;
///     overload "apic_noop+apic.wakeup_secondary_cpu" = io_delay: 0;
///     "legacy_pic" := symbol "null_legacy_pic", was "default_legacy_pic";
///     "apic" := symbol "apic_noop";
///     "level2_fixmap_pgt+3584" := value 0x63, was "0";
/// }
/// ```
#[macro_export]
macro_rules! hooks {
    () => {};
    ($(#[$meta:meta])* $old:ident => optional $place:literal $($rest:tt)*) => {
        $(#[$meta])*
        #[doc = concat!("Old value of `", $place, "`.")]
        #[used]
        #[unsafe(link_section = ".kbind.slots")]
        static $old: $crate::OptSymbol = $crate::OptSymbol::unfilled();
        $crate::__hook!([$crate::format::OPTIONAL] [(&raw const $old).cast()] $place $($rest)*);
    };
    ($(#[$meta:meta])* $old:ident => overload $place:literal $($rest:tt)*) => {
        $crate::__hook_with_old!([$crate::format::OVERLOAD] $(#[$meta])* $old $place $($rest)*);
    };
    ($(#[$meta:meta])* $old:ident => $place:literal $($rest:tt)*) => {
        $crate::__hook_with_old!([0] $(#[$meta])* $old $place $($rest)*);
    };
    (overload $place:literal $($rest:tt)*) => {
        $crate::__hook!([$crate::format::OVERLOAD] [core::ptr::null()] $place $($rest)*);
    };
    (optional $place:literal $($rest:tt)*) => {
        $crate::__hook!([$crate::format::OPTIONAL] [core::ptr::null()] $place $($rest)*);
    };
    ($place:literal $($rest:tt)*) => {
        $crate::__hook!([0] [core::ptr::null()] $place $($rest)*);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook_with_old {
    ([$flags:expr] $(#[$meta:meta])* $old:ident $place:literal $($rest:tt)*) => {
        $(#[$meta])*
        #[doc = concat!("Old value of `", $place, "`.")]
        #[used]
        #[unsafe(link_section = ".kbind.slots")]
        static $old: $crate::Symbol = $crate::Symbol::unfilled();
        $crate::__hook!([$flags] [(&raw const $old).cast()] $place $($rest)*);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    ([$flags:expr] [$slot:expr] $place:literal := symbol $symbol:literal, was $was:literal; $($rest:tt)*) => {
        $crate::__record!(HookSymbol, $flags | $crate::format::CHECKED, concat!($place, "\0", $was, "\0", $symbol),
            slot($slot));
        $crate::hooks!($($rest)*);
    };
    ([$flags:expr] [$slot:expr] $place:literal := symbol $symbol:literal; $($rest:tt)*) => {
        $crate::__record!(HookSymbol, $flags, concat!($place, "\0\0", $symbol), slot($slot));
        $crate::hooks!($($rest)*);
    };
    ([$flags:expr] [$slot:expr] $place:literal := value $value:expr, was $was:literal; $($rest:tt)*) => {
        $crate::__record!(HookValue, $flags | $crate::format::CHECKED, concat!($place, "\0", $was),
            slot($slot), number($value));
        $crate::hooks!($($rest)*);
    };
    ([$flags:expr] [$slot:expr] $place:literal = $function:path : $arity:literal, was $was:literal; $($rest:tt)*) => {
        $crate::__record!(HookFunction, $flags | $crate::format::CHECKED, concat!($place, "\0", $was),
            slot($slot), target($function as *const ()), arity($arity));
        $crate::hooks!($($rest)*);
    };
    ([$flags:expr] [$slot:expr] $place:literal = $function:path : $arity:literal; $($rest:tt)*) => {
        $crate::__record!(HookFunction, $flags, concat!($place, "\0"),
            slot($slot), target($function as *const ()), arity($arity));
        $crate::hooks!($($rest)*);
    };
}

/// Waits of the kernel that the object shall know of: each `pause` instruction between two symbols of its text becomes a software interrupt
/// (`int vector`, as long as `pause`), whose gate the object writes.
///
/// ```
/// const VECTOR: u8 = 26;
/// kbind::waits! { "_stext" to "_etext" = VECTOR; }
/// ```
#[macro_export]
macro_rules! waits {
    ($start:literal to $end:literal = $vector:expr;) => {
        $crate::__record!(Waits, 0, concat!($start, "\0", $end), number($vector as u8 as u64));
    };
}
