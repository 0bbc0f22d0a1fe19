# The code that runs where only the window is certain to be mapped: maybe on a user page table (PTI), maybe on the trampoline stack or an
# IST stack, with the GS base of user mode. It touches the stack and the window, nothing else of the kernel.
#
# The vCPU is known from the limit of the IDT: 0xfff + index once the kernel's own IDT is loaded; a smaller limit is that of a bring-up
# IDT, and then VmPage.bringup_vcpu tells. The start of the object must stay in this order: gates of the bring-up IDT hold these addresses.

.section .text.entry, "ax"

# eax = index of this vCPU * 4096
.macro VCPU_OFFSET
    sub rsp, 16
    sidt [rsp]
    movzx eax, word ptr [rsp]
    add rsp, 16
    sub eax, 0xfff
    jnc 88f
    mov eax, dword ptr [{bringup}]
88: shl eax, 12
.endm

.macro SAVE
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbx
.endm

.macro RESTORE
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
.endm

# Alignment, direction and interrupt flags may be those of user mode: the passage gets clean ones.
.macro CLEAN_FLAGS
    push 2
    popfq
.endm

.balign 16
.globl colinux_nmi
colinux_nmi:
    endbr64
    jmp forward_nmi

.balign 16
.globl colinux_machine_check
colinux_machine_check:
    endbr64
    jmp forward_machine_check

# Vector 0x20 + n is 16 * n bytes behind this.
.balign 16
.globl colinux_vectors
colinux_vectors:
.set vector, 0x20
.rept 0xe0
.balign 16
    endbr64
    push vector
    jmp forward_interrupt
.set vector, vector + 1
.endr

# The kernel waits (`waits.rs`). Interrupts are off in here as behind any gate; what the host raises meanwhile brings an interrupt.
.balign 16
.globl colinux_wait
colinux_wait:
    endbr64
    pause
    push rax
    push rbx
    VCPU_OFFSET
    lea rbx, [rax + {vcpu_pages}]
    inc dword ptr [rbx + {waits}]
    test dword ptr [rbx + {waits}], {patience} - 1
    pop rbx
    pop rax
    jz 1f
    iretq
1:  SAVE
    CLEAN_FLAGS
    VCPU_OFFSET
    lea rdi, [rax + {passage_data}]
    movabs rsi, {yield} + {irqs_off}
    xor edx, edx
    xor ecx, ecx
    call colinux_passage
    RESTORE
    iretq

# A physical interrupt: it belongs to the host. Leave with its vector; the host runs its handler and lets us go on. If it raised events
# meanwhile, the frame that the hardware has pushed serves the kernel as that of a "platform IPI".
.balign 16
forward_interrupt:
    SAVE
    CLEAN_FLAGS
    VCPU_OFFSET
    lea rbx, [rax + {vcpu_pages}]
    lea rdi, [rax + {passage_data}]
    mov esi, {interrupt}
    mov edx, dword ptr [rsp + 80]
    xor ecx, ecx
    call colinux_passage
    cmp qword ptr [rbx], 0
    RESTORE
    lea rsp, [rsp + 8]
    jne 1f
    iretq
1:  jmp qword ptr [rip + {platform_ipi}]

# extern "C" fn colinux_idle(): pv_ops.irq.safe_halt, which enters with interrupts off and returns with interrupts on.
.balign 16
.globl colinux_idle
colinux_idle:
    endbr64
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    pushfq
    pop r12
    cli
    or r12d, 0x200
    mov edi, {idle}
    xor esi, esi
    xor edx, edx
    jmp leave_guest

# extern "C" fn colinux_hypercall(reason, arg0, arg1) -> u64
# With interrupts on, pending events are delivered at once, as an interrupt that arrives at the end of the function would be.
.balign 16
.globl colinux_hypercall
colinux_hypercall:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    pushfq
    pop r12
    cli
leave_guest:
    VCPU_OFFSET
    lea rbx, [rax + {vcpu_pages}]
    mov rcx, rdx
    mov rdx, rsi
    mov rsi, rdi
    lea rdi, [rax + {passage_data}]
    test r12d, 0x200
    jnz 1f
    bts rsi, 32
1:  call colinux_passage
    test r12d, 0x200
    jz 3f
    cmp qword ptr [rbx], 0
    je 2f
    mov rcx, rsp
    and rsp, -16
    mov edx, ss
    push rdx
    push rcx
    push r12
    mov edx, cs
    push rdx
    lea rdx, [rip + 3f]
    push rdx
    jmp qword ptr [rip + {platform_ipi}]
2:  sti
3:  pop r12
    pop rbx
    pop rbp
    ret

# NMIs and machine checks belong to the host, too. They come on an IST stack, which the next one will overwrite, and there may be a next one
# as soon as the host has returned from its own handler (its iret opens NMIs). So the registers and the frame move to a stack of ours:
# the upper half of VcpuPage.nmi_stack for NMIs, the lower half for machine checks, so that one may interrupt the other. An NMI that comes while
# we are on that stack is only counted; we leave again until the count is zero. The way back, between the test of the count and the end of
# iretq, cannot be interrupted and resumed: it starts over (all it needs is still on our stack). That such an NMI hit our own code is
# decided by stack *and* instruction pointer, as user mode may load any value into its stack pointer before a system call.
#
# What was interrupted in this file or in the passage is on its way out or back, with interrupts off, maybe with the vector of an interrupt that
# the CPU has accepted and nobody else knows of: the host is told so, and lets nobody else have the CPU before the next exit.
#
# Stack: 10 registers (rbx lowest, rax highest), then rip, cs, rflags, rsp, ss.
.macro FORWARD name, top, counter, reason
.balign 16
\name:
    SAVE
    VCPU_OFFSET
    lea rbx, [rax + {vcpu_pages}]
    test byte ptr [rsp + 88], 3
    jnz 1f
    mov rax, qword ptr [rsp + 104]
    sub rax, rbx
    sub rax, \top - 1024
    cmp rax, 1024
    jae 1f
    mov rax, qword ptr [rsp + 80]
    sub rax, {window}
    cmp rax, {window_size}
    jb 5f
1:  cld
    mov rsi, rsp
    lea rdi, [rbx + \top - 120]
    mov ecx, 15
    rep movsq
    lea rsp, [rbx + \top - 120]
2:  VCPU_OFFSET
    lea rbx, [rax + {vcpu_pages}]
    lea rsp, [rbx + \top - 120]
    CLEAN_FLAGS
    mov qword ptr [rbx + \counter], 0
    lea rdi, [rbx + {vcpu_to_passage}]
    movabs rsi, \reason + {irqs_off}
    xor edx, edx
    test byte ptr [rsp + 88], 3
    jnz 8f
    mov rax, qword ptr [rsp + 80]
    mov rcx, rax
    sub rcx, {passage_code}
    cmp rcx, {page}
    jb 7f
    lea rcx, [rip + colinux_nmi]
    cmp rax, rcx
    jb 8f
    lea rcx, [rip + colinux_entry_end]
    cmp rax, rcx
    jae 8f
7:  mov edx, {on_the_way}
8:  xor ecx, ecx
    call colinux_passage
3:  cmp qword ptr [rbx + \counter], 0
    jne 2b
    mov rax, qword ptr [rsp + 72]
    mov rcx, qword ptr [rsp + 64]
    mov rdx, qword ptr [rsp + 56]
    mov rsi, qword ptr [rsp + 48]
    mov rdi, qword ptr [rsp + 40]
    mov r8, qword ptr [rsp + 32]
    mov r9, qword ptr [rsp + 24]
    mov r10, qword ptr [rsp + 16]
    mov r11, qword ptr [rsp + 8]
    mov rbx, qword ptr [rsp]
    lea rsp, [rsp + 80]
    iretq
4:
5:  lock inc qword ptr [rbx + \counter]
    mov rax, qword ptr [rsp + 80]
    lea rcx, [rip + 3b]
    cmp rax, rcx
    jb 6f
    lea rcx, [rip + 4b]
    cmp rax, rcx
    jae 6f
    lea rax, [rip + 2b]
    mov qword ptr [rsp + 80], rax
    lea rax, [rbx + \top - 120]
    mov qword ptr [rsp + 104], rax
6:  RESTORE
    iretq
.endm

FORWARD forward_nmi, 4096, {nmi_count}, {nmi}
FORWARD forward_machine_check, 3072, {machine_check_count}, {machine_check}
.globl colinux_entry_end
colinux_entry_end:
.text
