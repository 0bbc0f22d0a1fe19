//! Software interrupts into the host's own IDT, so that the host's handlers see what arrived while the guest ran.

use core::arch::{asm, global_asm};

// One thunk of 8 bytes for each vector: `endbr64; int N; ret`. It is called through a register, which a kernel with IBT allows to an endbr64 alone.
global_asm!(
    ".pushsection .text.colinux_thunks, \"ax\", @progbits",
    ".balign 64",
    "colinux_int_thunks:",
    ".set vector, 0",
    ".rept 256",
    "    .balign 8",
    "    endbr64",
    "    .byte 0xcd, vector",
    "    ret",
    "    int3",
    "    .set vector, vector + 1",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    static colinux_int_thunks: u8;
}

fn thunk(vector: u8) -> *const u8 {
    (&raw const colinux_int_thunks).wrapping_add(usize::from(vector) * 8)
}

/// First vector of external interrupts.
pub const FIRST_EXTERNAL: u8 = 0x20;

/// Calls the host's handler of an external interrupt, which acknowledges it. Vectors below 0x20 are ignored.
///
/// # Safety
/// We are in the host, interrupts are off, and the CPU had accepted `vector` from its interrupt controller.
pub unsafe fn raise_vector(vector: u8) {
    if vector < FIRST_EXTERNAL {
        return;
    }
    // SAFETY: the thunk is `endbr64; int N; ret`; the handler keeps all registers; only flags and the stack are used by the call.
    unsafe { asm!("call {}", in(reg) thunk(vector)) };
}

/// Calls the host's NMI handler; its iret lets further NMIs through.
///
/// # Safety
/// We are in the host, and NMIs are held back because one was accepted and no iret came since.
pub unsafe fn raise_nmi() {
    // SAFETY: by contract.
    unsafe { asm!("int 2") };
}

/// Calls the host's machine check handler.
///
/// # Safety
/// We are in the host and a machine check was accepted.
pub unsafe fn raise_machine_check() {
    // SAFETY: by contract.
    unsafe { asm!("int 18") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thunk_may_be_called_indirectly_and_raises_its_vector() {
        for vector in 0..=u8::MAX {
            // SAFETY: a thunk is 8 bytes of text.
            let code = unsafe { thunk(vector).cast::<[u8; 8]>().read() };
            assert_eq!(code, [0xf3, 0x0f, 0x1e, 0xfa, 0xcd, vector, 0xc3, 0xcc]);
        }
    }
}
