//! The machine code by which a process is snapshot and another becomes what it was (`runtimes/python/_lambent/{memory,snapshot,clone}.py`).
//!
//! A template maps it before it forks, so it lies at the same address in all its forks, outside of everything that a snapshot
//! replaces. It has two entries:
//!
//! | entry | offset | takes | does |
//! | --- | --- | --- | --- |
//! | freeze | 0 | where to write 72 bytes, a descriptor | notes down the registers that a call preserves, where it returns to, and the floating point settings; writes one byte to the descriptor; waits for ever |
//! | play | 128 | a list | makes the system calls of the list in turn; then takes on the registers that a `freeze` noted down and returns from it with 1 |
//!
//! An entry of the list is eight words: the call's number, its six arguments, and where 32 bits of its result go (0: nowhere). A call that
//! fails ends the process. The number -1 ends the list; the word after it says where the registers are. `play` uses no stack: the
//! stack is among what is replaced. Both run with what the function may do, which is all they need; they are data to us, and are never run in
//! this process.

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    r#"
    .pushsection .rodata.lambent_clone, "a", @progbits
    .balign 16
    .hidden lambent_clone_begin
    .globl lambent_clone_begin
lambent_clone_begin:
    mov [rdi], rbx
    mov [rdi + 8], rbp
    mov [rdi + 16], r12
    mov [rdi + 24], r13
    mov [rdi + 32], r14
    mov [rdi + 40], r15
    lea rax, [rsp + 8]
    mov [rdi + 48], rax
    mov rax, [rsp]
    mov [rdi + 56], rax
    stmxcsr dword ptr [rdi + 64]
    fnstcw word ptr [rdi + 68]
    mov rax, rdi
    mov edi, esi
    mov rsi, rax
    mov edx, 1
    mov eax, 1 // write
    syscall
2:  mov eax, 34 // pause
    syscall
    jmp 2b

    .org lambent_clone_begin + 128
    mov rbx, rdi
3:  mov rax, [rbx]
    cmp rax, -1
    je 5f
    mov rdi, [rbx + 8]
    mov rsi, [rbx + 16]
    mov rdx, [rbx + 24]
    mov r10, [rbx + 32]
    mov r8, [rbx + 40]
    mov r9, [rbx + 48]
    syscall
    cmp rax, -4096 // all above are errors
    ja 6f
    mov rcx, [rbx + 56]
    test rcx, rcx
    jz 4f
    mov dword ptr [rcx], eax
4:  add rbx, 64
    jmp 3b
6:  mov edi, 113
    mov eax, 231 // exit_group
    syscall
5:  mov rdi, [rbx + 8]
    mov rbx, [rdi]
    mov rbp, [rdi + 8]
    mov r12, [rdi + 16]
    mov r13, [rdi + 24]
    mov r14, [rdi + 32]
    mov r15, [rdi + 40]
    mov rsp, [rdi + 48]
    ldmxcsr dword ptr [rdi + 64]
    fldcw word ptr [rdi + 68]
    mov eax, 1
    jmp qword ptr [rdi + 56]
    .hidden lambent_clone_end
    .globl lambent_clone_end
lambent_clone_end:
    .popsection
"#
);

/// The code; none where there is none for this machine's processors.
#[cfg(target_arch = "x86_64")]
pub(crate) fn code() -> &'static [u8] {
    unsafe extern "C" {
        static lambent_clone_begin: u8;
        static lambent_clone_end: u8;
    }
    let (begin, end) = (&raw const lambent_clone_begin, &raw const lambent_clone_end);
    // SAFETY: both labels are in the one section above, the first before the second, and what lies between them is constant.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
}

/// The code; none where there is none for this machine's processors.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn code() -> &'static [u8] {
    &[]
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_are_where_the_runtime_looks_for_them() {
        let code = code();
        assert!(code.len() > 128 && code.len() < 4096, "{}", code.len());
        assert_eq!(code[..3], [0x48, 0x89, 0x1f], "mov [rdi], rbx");
        assert_eq!(code[128..131], [0x48, 0x89, 0xfb], "mov rbx, rdi");
    }
}
