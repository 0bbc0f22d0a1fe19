# The passage: one page of code that carries a CPU from the host world to the guest world and back.
#
# The page is mapped three times: in the host ("H", where the driver's image lies), in the guest ("G", in the window) and in the
# tiny page table, which maps H and G and nothing else. The vCPU's data page is mapped likewise. So the way is
#
#       host space  ->  tiny space at H  ->  tiny space at G  ->  guest space            (enter)
#       guest space ->  tiny space at G  ->  tiny space at H  ->  host space             (leave)
#
# An NMI or a machine check can arrive at any instruction. From the first change of a table to the last, IDTR and GDTR point into the data
# page, by an alias that is mapped in the space we are in; the stubs at the end only count, and return WITHOUT iret, so that the
# CPU holds further NMIs back until the host's own handler (int 2, in Rust, after we are home) executes its iret.
# So: no table may be left behind, no stack may be unmapped, and a data field that a nested crossing would overwrite may only be
# touched while the passage's IDT is loaded.
#
# TLB: the guest runs without CR4.PGE. Changing PGE drops every entry of every PCID, global or not, and both ways have one such write.
# Where both worlds have PGE set (a guest in its first instructions), an extra write clears it first.
#
# Offsets are names that passage.rs gives from offset_of!. Functions are typed, so that the kernel and debuggers name them. Label prefix: colinux_. Syntax: Intel.

    .pushsection .text.colinux_passage, "ax", @progbits
    .balign 4096
    .globl  colinux_passage_page
    .type   colinux_passage_page, @function
colinux_passage_page:

# leave(rdi: data page at G, rsi: reason, rdx: arg0, rcx: arg1) -> rax          The guest's way out: the first byte of the page.
# Called with interrupts off, on any stack of the guest, in any of its page tables. Keeps what the C ABI keeps.
# Reason and arguments stay in their registers all the way: the host finds them there.
    .globl  colinux_passage_leave
    .type   colinux_passage_leave, @function
colinux_passage_leave:
    endbr64
    # 1. What the guest's C code wants kept lies on the guest's stack.
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    pushfq
    # 2. From here on NMIs are only counted. (An NMI before this line makes a whole round trip of its own: nothing was written yet but
    #    the guest's IDTR, which that round trip writes with the same value.)
    sidt    [rdi + {G_IDTR}]
    lidt    [rdi + {PIDTR_G}]
    mov     [rdi + {G_RSP}], rsp
    # 3. A full-size IDT gets the vCPU's number into its limit: the limit beyond 0xfff means nothing to the CPU, and `sidt` reads it
    #    back anywhere, with any GS, in one instruction.
    cmp     word ptr [rdi + {G_IDTR}], 0xfff
    jb      2f
    mov     ax, [rdi + {IDT_LIMIT}]
    mov     [rdi + {G_IDTR}], ax
2:
    # 4. The guest's tables and control registers.
    sgdt    [rdi + {G_GDTR}]
    lgdt    [rdi + {PGDTR_G}]
    mov     rax, cr0
    mov     [rdi + {G_CR0}], rax
    mov     rax, cr2
    mov     [rdi + {G_CR2}], rax
    mov     rax, cr3
    mov     [rdi + {G_CR3}], rax
    mov     rbx, cr4
    mov     [rdi + {G_CR4}], rbx
    mov     eax, ss
    mov     [rdi + {G_SS}], eax
    cmp     word ptr [rdi + {G_TR}], 0
    je      20f
3:  mov     rax, [rdi + {VCPU_PAGE}]
    cmp     qword ptr [rax + {VP_DR7}], 0
    jne     21f
4:  test    bl, 0x80
    jnz     22f
    # 5. Over: the host's alias of everything.
5:  mov     r8, [rdi + {SELF_H}]
    lea     rsp, [rdi + {STACK_TOP}]
    mov     rax, [rdi + {TINY_CR3}]
    mov     cr3, rax
    jmp     qword ptr [rdi + {RESUME_H}]

    .globl  colinux_passage_resume_h
    .type   colinux_passage_resume_h, @function
colinux_passage_resume_h:
    endbr64
    lea     rsp, [r8 + {STACK_TOP}]
    lidt    [r8 + {PIDTR_H}]
    lgdt    [r8 + {PGDTR_H}]
    # 6. The host's CR4 (PGE: full flush; PCIDE may be set because the tiny CR3 has PCID 0), then the host's space.
    mov     rax, [r8 + {H_CR4}]
    mov     cr4, rax
    mov     rax, [r8 + {H_CR3}]
    mov     cr3, rax
    mov     rax, [r8 + {H_CR0}]
    cmp     rax, [r8 + {G_CR0}]
    je      6f
    mov     cr0, rax
6:  # 7. GS base, before the host's IDT: the host's NMI entry looks at it.
    test    dword ptr [r8 + {FLAGS}], {F_FSGSBASE}
    jz      23f
    rdgsbase rax
    mov     [r8 + {G_GS_BASE}], rax
    mov     rax, [r8 + {H_GS_BASE}]
    wrgsbase rax
7:  # 8. The host's TSS, through the private copy of its descriptor: the busy bit of the host's own GDT is never touched.
    movzx   eax, word ptr [r8 + {H_TR}]
    mov     byte ptr [r8 + rax + {GDT_H} + 5], 0x89
    ltr     ax
    lgdt    [r8 + {H_GDTR}]
    mov     eax, ss
    cmp     eax, [r8 + {H_SS}]
    je      8f
    mov     ss, [r8 + {H_SS}]
8:  lidt    [r8 + {H_IDTR}]
    # 9. Home.
    mov     rsp, [r8 + {H_RSP}]
    popfq
    pop     rbx
    pop     rbp
    ret
    int3

# The guest has no TSS yet, as far as we know: it has one when its GDT holds a busy 64-bit TSS where TR points. (Before its first `ltr`,
# TR still is the host's.) Its descriptor is copied once; enter clears the busy bit in the copy.
20: str     eax
    test    eax, 7
    jnz     3b
    cmp     eax, {LAST_TR}
    ja      3b
    lea     r8d, [rax + 15]
    cmp     r8w, [rdi + {G_GDTR}]
    ja      3b
    mov     r9, [rdi + {G_GDTR} + 2]
    cmp     byte ptr [r9 + rax + 5], 0x8b
    jne     3b
    mov     r8, [r9 + rax]
    mov     [rdi + rax + {GDT_G}], r8
    mov     r8, [r9 + rax + 8]
    mov     [rdi + rax + {GDT_G} + 8], r8
    mov     [rdi + {G_TR}], ax
    jmp     3b
# The guest has armed breakpoints: they must not fire in the host.
21: mov     rax, dr6
    mov     [rdi + {G_DR6}], rax
    mov     eax, 0x400
    mov     dr7, rax
    jmp     4b
# The guest has global pages: drop them before an address of the host is used.
22: mov     rax, rbx
    and     al, 0x7f
    mov     cr4, rax
    jmp     5b
# A CPU without FSGSBASE.
23: mov     r9, rcx
    mov     r10, rdx
    mov     ecx, {MSR_GS_BASE}
    rdmsr
    mov     [r8 + {G_GS_BASE}], eax
    mov     [r8 + {G_GS_BASE} + 4], edx
    mov     eax, [r8 + {H_GS_BASE}]
    mov     edx, [r8 + {H_GS_BASE} + 4]
    wrmsr
    mov     rdx, r10
    mov     rcx, r9
    jmp     7b

# enter(rdi: data page at H) -> rsi: reason, rdx: arg0, rcx: arg1               The host's way in. Returns when the guest leaves.
# Called with interrupts off; keeps rbx, rbp and the flags, nothing else. The host's GDTR, IDTR, TR, SS, CR0 and GS base are in the
# data page since the residency began.
    .globl  colinux_passage_enter
    .type   colinux_passage_enter, @function
    .balign 16
colinux_passage_enter:
    # 1. What Rust wants kept lies on the host's stack.
    push    rbp
    push    rbx
    pushfq
    mov     [rdi + {H_RSP}], rsp
    # 2. The host's control registers that can change between crossings.
    mov     rax, cr3
    mov     [rdi + {H_CR3}], rax
    mov     rax, cr4
    mov     [rdi + {H_CR4}], rax
    # 3. From here on NMIs are only counted.
    lidt    [rdi + {PIDTR_H}]
    lgdt    [rdi + {PGDTR_H}]
    lea     rsp, [rdi + {STACK_TOP}]
    # 4. Over: the guest's alias of everything.
    mov     r8, [rdi + {SELF_G}]
    mov     rax, [rdi + {TINY_CR3}]
    mov     cr3, rax
    jmp     qword ptr [rdi + {RESUME_G}]

    .globl  colinux_passage_resume_g
    .type   colinux_passage_resume_g, @function
colinux_passage_resume_g:
    endbr64
    lea     rsp, [r8 + {STACK_TOP}]
    lidt    [r8 + {PIDTR_G}]
    lgdt    [r8 + {PGDTR_G}]
    # 5. The guest's space.
    mov     rax, [r8 + {G_CR3}]
    mov     cr3, rax
    # 6. GS base, while the host's CR4 still allows wrgsbase.
    test    dword ptr [r8 + {FLAGS}], {F_FSGSBASE}
    jz      33f
    mov     rax, [r8 + {G_GS_BASE}]
    wrgsbase rax
3:  mov     rax, [r8 + {G_CR0}]
    cmp     rax, [r8 + {H_CR0}]
    je      4f
    mov     cr0, rax
4:  # 7. The guest's CR4; PGE goes from 1 to 0: full flush.
    mov     rax, [r8 + {G_CR4}]
    test    al, 0x80
    jnz     32f
5:  mov     cr4, rax
    # 8. The guest's TSS and GDT.
    movzx   eax, word ptr [r8 + {G_TR}]
    test    eax, eax
    jz      6f
    mov     byte ptr [r8 + rax + {GDT_G} + 5], 0x89
    ltr     ax
6:  lgdt    [r8 + {G_GDTR}]
    mov     eax, ss
    cmp     eax, [r8 + {G_SS}]
    je      7f
    mov     ss, [r8 + {G_SS}]
7:  test    dword ptr [r8 + {FLAGS}], {F_RELOAD}
    jnz     30f
8:  mov     rax, cr2
    mov     rcx, [r8 + {G_CR2}]
    cmp     rax, rcx
    je      9f
    mov     cr2, rcx
9:  mov     rax, [r8 + {VCPU_PAGE}]
    cmp     qword ptr [rax + {VP_DR7}], 0
    jne     31f
    # 9. The guest's IDT comes last: an NMI on the next instruction makes a whole round trip and overwrites the guest's half of the data
    #    page, so nothing of it is read any more; and by the stack pointer the guest's NMI entry knows whether it interrupted itself.
10: mov     rax, [r8 + {RET}]
    mov     rsp, [r8 + {G_RSP}]
    lidt    [r8 + {G_IDTR}]
    popfq
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbx
    pop     rbp
    ret
    int3

# First entry of a residency: the guest's selectors, which only make sense with the guest's GDT, then the bases that they spoil.
30: and     dword ptr [r8 + {FLAGS}], ~{F_RELOAD}
    movzx   eax, word ptr [r8 + {G_LDTR}]
    lldt    ax
    movzx   eax, word ptr [r8 + {G_DS}]
    mov     ds, eax
    movzx   eax, word ptr [r8 + {G_ES}]
    mov     es, eax
    movzx   eax, word ptr [r8 + {G_FS}]
    mov     fs, eax
    movzx   eax, word ptr [r8 + {G_GS}]
    mov     gs, eax
    mov     ecx, {MSR_FS_BASE}
    mov     eax, [r8 + {G_FS_BASE}]
    mov     edx, [r8 + {G_FS_BASE} + 4]
    wrmsr
    mov     ecx, {MSR_GS_BASE}
    mov     eax, [r8 + {G_GS_BASE}]
    mov     edx, [r8 + {G_GS_BASE} + 4]
    wrmsr
    jmp     8b
# The guest has armed breakpoints.
31: mov     rax, [rax + {VP_DR7}]
    mov     rcx, [r8 + {G_DR6}]
    mov     dr6, rcx
    mov     dr7, rax
    jmp     10b
# The guest has PGE, and so may the host: clear it first, so that the flush happens.
32: mov     rcx, rax
    and     cl, 0x7f
    mov     cr4, rcx
    jmp     5b
# A CPU without FSGSBASE.
33: mov     ecx, {MSR_GS_BASE}
    mov     eax, [r8 + {G_GS_BASE}]
    mov     edx, [r8 + {G_GS_BASE} + 4]
    wrmsr
    jmp     3b

# The first instructions of a vCPU: `enter` returns here with rbx = rip, rbp = rsp, r12 = rsi.
    .globl  colinux_passage_start
    .type   colinux_passage_start, @function
colinux_passage_start:
    mov     rsi, r12
    mov     rsp, rbp
    xor     ebp, ebp
    jmp     rbx

# count_stub(counter): a gate of the passage's IDTs. Finds the data page by the IDT base, whatever the stack is, adds one to the counter, and
# returns without iret: RIP and RFLAGS are put below the interrupted stack pointer, then popfq and ret take them.
    .macro  colinux_count_stub name, counter
    .globl  \name
    .type   \name, @function
    .balign 16
\name:
    endbr64
    push    rax
    push    rcx
    push    rdx
    sub     rsp, 16
    sidt    [rsp]
    mov     rax, [rsp + 2]
    add     rsp, 16
    and     rax, -4096
    inc     word ptr [rax + \counter]
    mov     rax, [rsp + 24]             # RIP
    mov     rcx, [rsp + 40]             # RFLAGS
    mov     rdx, [rsp + 48]             # RSP
    mov     [rdx - 8], rax              # may overwrite the frame's SS and RSP: both are in registers or not needed
    mov     [rdx - 16], rcx
    lea     rdx, [rdx - 16]
    mov     [rsp + 24], rdx
    pop     rdx
    pop     rcx
    pop     rax
    pop     rsp
    popfq
    ret
    int3
    .endm
    colinux_count_stub colinux_passage_nmi, {NMIS}
    colinux_count_stub colinux_passage_mce, {MCES}
    colinux_count_stub colinux_passage_early_nmi, {EARLY_NMIS}

    # The page ends here; code that outgrew it would not assemble.
    .org    colinux_passage_page + 4096, 0xcc
    .popsection
