//! The kernel module as it is built: for both architectures, a drop-in by its own description,
//! and free of panics by a link that refuses a planted one.

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
