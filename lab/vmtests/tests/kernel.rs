//! The kernel module as it is built: for both architectures, a drop-in by its own description, free
//! of panics by a link that refuses a planted one, and without a floating-point or vector register.

use std::error::Error;
use std::fs;

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::chroot::Chroot;
use varia_lab::elf::Elf;
use varia_lab::{Arch, Set, kernel_modules, packages};

fn described(path: &std::path::Path, key: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let elf = Elf::parse(&bytes).ok_or("not an ELF file")?;
    let mut values = elf.modinfo(key);
    values.sort();
    Ok(values)
}

#[test]
fn our_module_describes_itself_as_the_original_does() -> Result<(), Box<dyn Error>> {
    for arch in Arch::ALL {
        let (ours, original) = (kernel_modules::ours(arch)?, kernel_modules::original(arch)?);
        for key in ["name", "alias", "vermagic", "license"] {
            let values = described(&ours, key)?;
            assert!(!values.is_empty(), "{arch}: no {key}");
            assert_eq!(values, described(&original, key)?, "{arch}: {key}");
        }
    }
    Ok(())
}

#[test]
fn a_planted_panic_is_refused_by_the_link() -> Result<(), Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    for arch in Arch::ALL {
        let out = target_folder()
            .join("kernel")
            .join(arch.name())
            .join("planted");
        fs::create_dir_all(&out)?;
        let out = out.canonicalize()?;
        let script = workspace().join("kernel/rust/planted.sh");
        let chroot = Chroot::new(&tools).bind(workspace()).bind(&out).cwd(&out);
        let output = chroot.run([script.as_os_str(), arch.debian().as_ref(), out.as_os_str()])?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("the planted panic was refused"),
            "{arch}: {said}"
        );
    }
    Ok(())
}

/// Whether an operand of a disassembled instruction is a floating-point or vector register.
fn is_forbidden(arch: Arch, operand: &str) -> bool {
    let number = |rest: &str| rest.parse::<u8>().is_ok_and(|number| number < 32);
    match arch {
        // v0.16b, q0, d0, s0, h0, b0, z0, p0
        Arch::Aarch64 => {
            let register = operand.split('.').next().unwrap_or(operand);
            register
                .strip_prefix(['v', 'q', 'd', 's', 'h', 'b', 'z', 'p'])
                .is_some_and(number)
        }
        Arch::X86_64 => ["%xmm", "%ymm", "%zmm", "%mm", "%st", "%k"]
            .iter()
            .any(|prefix| operand.starts_with(prefix)),
    }
}

/// The instructions of a disassembly that use such a register, and how many there are in all.
fn forbidden(arch: Arch, text: &str) -> (Vec<&str>, usize) {
    // Lines are "address:TAB bytes TAB mnemonic operands".
    let instructions: Vec<_> = text
        .lines()
        .filter_map(|line| Some((line, line.splitn(3, '\t').nth(2)?)))
        .collect();
    let uses = |instruction: &str| {
        // Before "<symbol>" stands an address, which may look like a register.
        let (operands, target) = match instruction.split_once('<') {
            Some((operands, _)) => (operands.trim_end(), true),
            None => (instruction, false),
        };
        let separators = [' ', '\t', ',', '(', ')', '[', ']', '{', '}', '!'];
        let mut fields: Vec<_> = operands.split(separators).collect();
        if target {
            fields.pop();
        }
        fields
            .into_iter()
            .skip(1)
            .any(|field| is_forbidden(arch, field))
    };
    let found = instructions
        .iter()
        .filter(|(_, instruction)| uses(instruction))
        .map(|(line, _)| *line)
        .collect();
    (found, instructions.len())
}

#[test]
fn the_rust_object_uses_no_floating_point_or_vector_register() -> Result<(), Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    for (arch, objdump) in [
        (Arch::Aarch64, "aarch64-linux-gnu-objdump"),
        (Arch::X86_64, "x86_64-linux-gnu-objdump"),
    ] {
        let module = kernel_modules::ours(arch)?;
        let folder = module.parent().ok_or("a module is in a folder")?;
        let object = folder.join("rust.o_shipped");
        let chroot = Chroot::new(&tools).bind(folder);
        let output = chroot.run([objdump.as_ref(), "-d".as_ref(), object.as_os_str()])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (found, count) = forbidden(arch, &text);
        assert!(count > 500, "{arch}: only {count} instructions:\n{text}");
        assert!(found.is_empty(), "{arch}: {found:#?}");
    }
    Ok(())
}

#[test]
fn the_disassembly_is_read_rightly() {
    let arm = "  0:\t4e201c00\tand\tv0.16b, v0.16b, v0.16b\n  4:\tfd400000\tldr\td0, [x0]\n\
               8:\tb50000ab\tcbnz\tx11, d0 <varia_probe+0xd0>\n  c:\taa0003e0\tmov\tx0, x0\n";
    assert_eq!(forbidden(Arch::Aarch64, arm).0.len(), 2);
    let x86 = "  0:\t0f 57 c0 \txorps  %xmm0,%xmm0\n  3:\t48 89 c0 \tmov    %rax,%rax\n";
    assert_eq!(forbidden(Arch::X86_64, x86).0.len(), 1);
}
