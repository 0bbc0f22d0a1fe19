# A whole 32-bit program, as far as its machine code goes: `compat.rs` puts an ELF header before it. It makes system calls in the two ways that 32-bit
# programs have, int 0x80 and the kernel's own entry (AT_SYSINFO: SYSENTER on Intel, SYSCALL on AMD), and compares what they return.
#
# Exit status: 0, all is well; 1, a result differs; 2, a register changed; 3, the kernel names no entry of its own.

    .pushsection .rodata.compat, "a", @progbits
    .globl  probe_compat_start
    .globl  probe_compat_end
    .code32
probe_compat_start:
    mov     eax, [esp]                  # argc, then argv, envp, and pairs of words
    lea     esi, [esp + eax * 4 + 8]
2:  lodsd
    test    eax, eax
    jnz     2b
3:  lodsd
    test    eax, eax
    jz      9f
    mov     edx, eax
    lodsd
    cmp     edx, 32                     # AT_SYSINFO
    jne     3b
    mov     edi, eax
    mov     esi, 500
4:  mov     eax, 20                     # getpid
    int     0x80
    mov     ebp, eax
    mov     ebx, 0x11223344
    mov     ecx, 0x55667788
    mov     edx, esi
    mov     eax, 20
    call    edi
    cmp     eax, ebp
    jne     7f
    cmp     ebx, 0x11223344
    jne     8f
    cmp     ecx, 0x55667788
    jne     8f
    cmp     edx, esi
    jne     8f
    dec     esi
    jnz     4b
    xor     ebx, ebx
    jmp     5f
7:  mov     ebx, 1
    jmp     5f
8:  mov     ebx, 2
    jmp     5f
9:  mov     ebx, 3
5:  mov     eax, 1                      # exit
    int     0x80
    ud2
    .code64
probe_compat_end:
    .popsection
