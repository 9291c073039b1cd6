// A UEFI program for arm64: it carries out register writes, gives firmware an ACPI table, and
// returns, so that firmware goes on to its boot options. `../early.rs` has it as words, which a test
// compares with an assembler's output.
//
// The data behind the code: pairs of an address and a value of 32 bits, each as 64 bits; a pair of
// zero and the table's length; the table.
//
// Offsets: UEFI 2.10, EFI_SYSTEM_TABLE.BootServices (96), EFI_BOOT_SERVICES.LocateProtocol (320),
// EFI_ACPI_TABLE_PROTOCOL.InstallAcpiTable (0).

        .text
        stp     x29, x30, [sp, #-48]!
        stp     x19, x20, [sp, #16]
        str     x21, [sp, #32]
        mov     x29, sp
        adr     x19, data
        ldr     x21, [x1, #96]
write:  ldp     x2, x3, [x19], #16
        cbz     x2, table
        str     w3, [x2]
        dsb     sy
        b       write
table:  mov     x20, x3
        mov     x0, xzr
        cbz     x20, end
        adr     x0, protocol
        mov     x1, xzr
        add     x2, sp, #40
        ldr     x3, [x21, #320]
        blr     x3
        cbnz    x0, end
        ldr     x0, [sp, #40]
        mov     x1, x19
        mov     x2, x20
        add     x3, sp, #40
        ldr     x4, [x0]
        blr     x4
end:    ldr     x21, [sp, #32]
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #48
        ret
        .balign 8
protocol:
        .word   0xffe06bdd
        .hword  0x6107, 0x46a6
        .byte   0x7b, 0xb2, 0x5a, 0x9c, 0x7e, 0xc5, 0x27, 0x5c
        .balign 16
data:
