//! The kernel module as it is built: for both architectures, a drop-in by its own description, free
//! of panics by a link that refuses a planted one, and without a floating-point or vector register.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_lab::agent_build::{compiler, target_folder, workspace};
use varia_lab::chroot::Chroot;
use varia_lab::elf::Elf;
use varia_lab::{
    Arch, ArchNames, DebianError, Flavour, Series, Set, command, kernel_modules, packages,
};
use varia_spec::nvidia::chip::{self, Driver};

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

/// Each module is made for its kernel, by the versions that it describes.
#[test]
fn our_module_builds_for_every_kernel_of_debian_that_has_what_it_needs()
-> Result<(), Box<dyn Error>> {
    let built = Flavour::ALL
        .into_iter()
        .filter(|flavour| !flavour.is_debug() && !flavour.is_rust());
    let mut kernels = Vec::new();
    for flavour in built {
        let module = kernel_modules::ours(flavour)?;
        let [version] = &described(&module, "vermagic")?[..] else {
            panic!("{flavour}: no vermagic");
        };
        let release = version.split(' ').next().unwrap_or_default();
        let series = flavour.series().map_or("7.2", Series::name);
        assert!(
            release.starts_with(series) && release.ends_with(&format!("-{}", flavour.name())),
            "{flavour}: {version}"
        );
        kernels.push(release.to_owned());
    }
    kernels.sort();
    kernels.dedup();
    assert_eq!(kernels.len(), 6, "{kernels:?}");
    Ok(())
}

/// Nothing is compiled for a kernel that can't be served, and each interface that it lacks is named.
#[test]
fn a_kernel_that_lacks_what_the_module_needs_is_told_so_by_name() -> Result<(), Box<dyn Error>> {
    let tree = packages::ensure(Set::Headers(Series::Declined))?;
    for arch in Arch::ALL {
        let headers = tree.path(&kernel_modules::headers(&tree, arch.debian()).to_string_lossy());
        let folder = folder(&format!("declined-{arch}"))?;
        let arguments = [
            arch.debian(),
            &headers.to_string_lossy(),
            &folder.to_string_lossy(),
        ];
        let compiler = compiler(&packages::ensure(Set::Tools)?, arch)?;
        let variables = [("CC", compiler.as_str())];
        let (done, text) = script_in("build.sh", &[&folder, &tree.root()], &variables, &arguments)?;
        assert!(!done, "{arch}: {text}");
        for lacks in [
            "the module can't be built for the kernel of",
            "exit status: 77",
            "linux/memory-failure.h is not there: pfn address spaces are in Linux 7.0 and newer",
            "vfio_pci_vmf_insert_pfn is not there: ",
            "__vfio_pci_memory_enabled is not there: ",
            "get_region_info_caps is not there: ",
            "debugfs_get_aux_num is not there: ",
        ] {
            assert!(text.contains(lacks), "{arch}: {lacks}: {text}");
        }
        assert!(
            !folder.join("rust").exists(),
            "{arch}: something was compiled"
        );
    }
    Ok(())
}

#[test]
fn ids_that_no_released_kernel_lists_are_built_in_only_when_asked_for() -> Result<(), Box<dyn Error>>
{
    let ids = |released: bool| {
        let skus = chip::skus().filter(move |(chip, sku)| {
            chip.driver() == Driver::NvgraceGpu && sku.released == released
        });
        skus.map(|(_, sku)| format!("vfio_pci:v000010DEd0000{:04X}sv*", sku.device.value))
    };
    assert!(ids(false).next().is_some(), "nothing is tested");
    for arch in Arch::ALL {
        let usual = described(&kernel_modules::ours(arch)?, "alias")?;
        let asked = described(&kernel_modules::with_unreleased_ids(arch)?, "alias")?;
        let has = |aliases: &[String], id: &str| aliases.iter().any(|alias| alias.starts_with(id));
        for id in ids(true) {
            assert!(has(&usual, &id) && has(&asked, &id), "{arch}: {id}");
        }
        for id in ids(false) {
            assert!(!has(&usual, &id) && has(&asked, &id), "{arch}: {id}");
        }
    }
    Ok(())
}

/// Each optional probe taken for absent: the path without the feature is built.
#[test]
fn the_path_without_an_optional_feature_builds() -> Result<(), Box<dyn Error>> {
    let mut features = Vec::new();
    for probe in fs::read_dir(workspace().join("kernel/probes"))? {
        let name = probe?.file_name().to_string_lossy().into_owned();
        let feature = name.strip_prefix("optional-");
        features.extend(
            feature
                .and_then(|rest| rest.strip_suffix(".c"))
                .map(str::to_owned),
        );
    }
    assert!(!features.is_empty(), "nothing is tested");
    for feature in features {
        let usual = fs::read(kernel_modules::ours(Arch::Aarch64)?)?;
        let without = fs::read(kernel_modules::ours_without(Arch::Aarch64, &feature)?)?;
        assert!(usual != without, "{feature}: the module is the same");
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
        kernel_modules::lend_core(arch, &out)?;
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

/// Runs a script of `kernel/` with a folder that it may write to, and gives what it says and
/// whether it succeeds.
fn script(
    name: &str,
    folder: &std::path::Path,
    arguments: &[&str],
) -> Result<(bool, String), Box<dyn Error>> {
    script_in(name, &[folder], &[], arguments)
}

/// [`script`] with several folders, in the first of which it runs, and with variables.
fn script_in(
    name: &str,
    folders: &[&std::path::Path],
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Result<(bool, String), Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    let script = workspace().join("kernel").join(name);
    let mut chroot = Chroot::new(&tools).bind(workspace()).cwd(folders[0]);
    for folder in folders {
        chroot = chroot.bind(folder);
    }
    for (name, value) in variables {
        chroot = chroot.env(name, value);
    }
    let argv =
        std::iter::once(script.as_os_str()).chain(arguments.iter().map(|text| text.as_ref()));
    match chroot.run(argv) {
        Ok(output) => Ok((true, String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(DebianError::Command { status, output, .. }) => Ok((false, output + "\n" + &status)),
        Err(other) => Err(other.into()),
    }
}

/// A fresh folder in the build's.
fn folder(name: &str) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let folder = target_folder().join("kernel").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

#[test]
fn an_unknown_hardening_option_stops_the_build_with_its_name() -> Result<(), Box<dyn Error>> {
    let folder = folder("hardening")?;
    let config = folder.join("include/config");
    fs::create_dir_all(&config)?;
    let path = folder.to_string_lossy();
    let known = "CONFIG_X86_KERNEL_IBT=y\nCONFIG_MITIGATION_RETHUNK=y\n\
                 CONFIG_FUNCTION_PADDING_BYTES=16\nCONFIG_CALL_PADDING=y\nCONFIG_SCSI=m\n";
    for (added, said) in [
        ("", None),
        ("CONFIG_MTD_CFI_I1=y\nCONFIG_CC_HAS_SLS=y\n", None),
        (
            "CONFIG_X86_DISABLED_FEATURE_SHADOW_STACK=y\nCONFIG_X86_REQUIRED_FEATURE_IBT=y\n",
            None,
        ),
        (
            "CONFIG_CALL_DEPTH_TRACKING=y\nCONFIG_RETPOLINE=y\nCONFIG_SLS=y\n",
            None,
        ),
        (
            "CONFIG_MITIGATION_TOMORROW=y\n",
            Some("CONFIG_MITIGATION_TOMORROW"),
        ),
        (
            "CONFIG_NEW_SHADOW_STACK=y\n",
            Some("CONFIG_NEW_SHADOW_STACK"),
        ),
        ("CONFIG_FUNCTION_PADDING_BYTES=64\n", Some("padding-64")),
    ] {
        fs::write(config.join("auto.conf"), format!("{known}{added}"))?;
        let (fits, text) = script("hardening.sh", &folder, &["amd64", &path])?;
        assert_eq!(fits, said.is_none(), "{added:?}: {text}");
        assert!(text.contains(said.unwrap_or("")), "{added:?}: {text}");
    }
    fs::write(config.join("auto.conf"), "CONFIG_SHADOW_CALL_STACK=y\n")?;
    assert!(script("hardening.sh", &folder, &["arm64", &path])?.0);
    assert!(
        !script("hardening.sh", &folder, &["amd64", &path])?.0,
        "amd64 has no x18"
    );
    Ok(())
}

#[test]
fn a_probe_that_fails_is_told_from_a_broken_tree() -> Result<(), Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    let headers = kernel_modules::headers(&tools, Arch::X86_64.debian());
    let folder = folder("probes")?;
    let probes = folder.join("planted");
    let path = probes.to_string_lossy().into_owned();
    let out = folder.join("out");
    let probe = |files: &[(&str, &str)]| -> Result<(bool, String), Box<dyn Error>> {
        let _ = fs::remove_dir_all(&probes);
        fs::create_dir_all(&probes)?;
        fs::write(probes.join("probe.h"), "#include <linux/pci.h>\n")?;
        fs::write(probes.join("tree.c"), "#include \"probe.h\"\n")?;
        for (name, text) in files {
            fs::write(probes.join(name), text)?;
        }
        let headers = headers.to_string_lossy();
        let arguments = ["x86", &headers, &out.to_string_lossy(), &path];
        script("probe.sh", &folder, &arguments)
    };
    let there = "#include \"probe.h\"\nvoid *probe = pci_enable_device;\n";
    let absent = "/*\n * names: pci_brew_tea pci_brew_coffee\n * reason: Linux 99 brews\n */\n\
                  #include \"probe.h\"\nvoid *probe = pci_brew_coffee;\n";
    let no_header = "/*\n * names: linux/coffee.h pci_brew_coffee\n * reason: Linux 99 brews\n */\n\
                     #include <linux/coffee.h>\n";

    let (done, text) = probe(&[
        ("optional-pci_enable_device.c", there),
        ("optional-pci_brew_coffee.c", absent),
    ])?;
    assert!(done, "{text}");
    let found = fs::read_to_string(out.join("varia_probes.h"))?;
    assert!(
        found.contains("#define ADAPTOR_HAS_PCI_ENABLE_DEVICE\n"),
        "{found}"
    );
    assert!(!found.contains("COFFEE"), "{found}");

    for (files, said) in [
        (
            ("required-pci_brew_coffee.c", absent),
            "lacks what the module needs:\n  pci_brew_coffee is not there: Linux 99 brews",
        ),
        (
            ("required-pci_brew_coffee.c", no_header),
            "lacks what the module needs:\n  linux/coffee.h is not there: Linux 99 brews",
        ),
        (
            ("optional-pci_brew_coffee.c", "#error no\n"),
            "fails for another reason",
        ),
        (
            ("tree.c", "#include <linux/nothing.h>\n"),
            "only includes the kernel's headers",
        ),
    ] {
        let (done, text) = probe(&[files])?;
        assert!(!done, "{said}");
        assert!(text.contains(said), "{text}");
        assert!(
            !out.join("varia_probes.h").exists(),
            "{said}: an answer is left behind"
        );
    }
    Ok(())
}

/// A copy of the amd64 kernel's headers with some options off.
fn headers_without(options: &[&str], folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    let original = kernel_modules::headers(&tools, Arch::X86_64.debian());
    let headers = folder.join("headers");
    let from = tools.path(&original.to_string_lossy());
    command::run(Command::new("cp").arg("-a").arg(&from).arg(&headers))?;
    let edit = |name: &str, change: &dyn Fn(&str) -> String| -> Result<(), Box<dyn Error>> {
        let path = headers.join(name);
        let text = fs::read_to_string(&path)?;
        let changed = change(&text);
        assert!(text != changed, "{name} is not changed");
        Ok(fs::write(path, changed)?)
    };
    let without = |text: &str| -> String {
        let is_on = |line: &&str| {
            let mut words = line.split([' ', '=']);
            !words.any(|word| options.contains(&word))
        };
        text.lines()
            .filter(is_on)
            .map(|line| format!("{line}\n"))
            .collect()
    };
    edit("include/config/auto.conf", &without)?;
    edit("include/generated/autoconf.h", &without)?;
    let (own, copy) = (original.to_string_lossy(), headers.to_string_lossy());
    edit("Makefile", &|text| text.replace(&*own, &copy))?;
    for name in ["scripts", "tools"] {
        let link = headers.join(name);
        let target = original.join(fs::read_link(&link)?);
        fs::remove_file(&link)?;
        symlink(target, link)?;
    }
    Ok(headers)
}

/// Runs a program of the amd64 tools on a module: lines of the output.
fn read_module(module: &Path, program: &str, option: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let tools = packages::ensure(Set::Tools)?;
    let folder = module.parent().ok_or("a module is in a folder")?;
    let program = format!("x86_64-linux-gnu-{program}");
    let argv = [program.as_ref(), option.as_ref(), module.as_os_str()];
    let output = Chroot::new(&tools).bind(folder).run(argv)?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Bytes of a section of a module; none if there is no such section.
fn section(module: &Path, name: &str) -> Result<Option<u64>, Box<dyn Error>> {
    for line in read_module(module, "readelf", "-SW")? {
        // "  [12] .return_sites PROGBITS 0000000000000000 001f2c 000150 00 ..."
        let fields = line.split_once(']').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        if fields.next() == Some(name) {
            let size = fields.nth(3).ok_or("a section without a size")?;
            return Ok(Some(u64::from_str_radix(size, 16)?));
        }
    }
    Ok(None)
}

/// On amd64 a kernel patches the returns that objtool lists, and unwinds by objtool's data. With
/// indirect-branch tracking objtool reads the whole module, else each object, the Rust object
/// included. The second kernel has no debugfs either.
#[test]
fn every_return_of_an_amd64_module_is_listed_with_tracking_or_without_and_without_debugfs()
-> Result<(), Box<dyn Error>> {
    let usual = kernel_modules::ours(Arch::X86_64)?;
    let object = kernel_modules::rust_object(Arch::X86_64, &[])?;
    let folder = folder("options")?;
    let headers = headers_without(&["CONFIG_X86_KERNEL_IBT", "CONFIG_DEBUG_FS"], &folder)?;
    let out = folder.join("out");
    let arguments = ["amd64", &headers.to_string_lossy(), &out.to_string_lossy()];
    let lent = object.parent().ok_or("an object is in a folder")?;
    let path = object.to_string_lossy();
    let compiler = compiler(&packages::ensure(Set::Tools)?, Arch::X86_64)?;
    let variables = [("RUST_OBJECT", &*path), ("CC", &compiler)];
    let (done, text) = script_in("build.sh", &[&folder, lent], &variables, &arguments)?;
    assert!(done, "{text}");
    let plain = out.join("nvgrace-gpu-vfio-pci.ko");
    for (module, has_debugfs) in [(&usual, true), (&plain, false)] {
        let disassembly = read_module(module, "objdump", "-dr")?;
        let returns = disassembly.iter();
        let returns =
            returns.filter(|line| line.contains("R_X86_64") && line.contains("__x86_return_thunk"));
        let returns = returns.count() as u64;
        let listed = section(module, ".return_sites")?.map(|bytes| bytes / 4);
        assert!(returns > 50, "{}: {returns} returns", module.display());
        assert_eq!(listed, Some(returns), "{}", module.display());
        // one entry of unwind data for each function of the Rust object at least
        let symbols = read_module(module, "nm", "--defined-only")?;
        let functions = symbols
            .iter()
            .filter(|line| line.contains(" T varia_") || line.contains(" t varia_"));
        let functions = functions.count() as u64;
        let entries = section(module, ".orc_unwind_ip")?.map_or(0, |bytes| bytes / 4);
        assert!(
            functions > 20 && entries > functions,
            "{functions} functions, {entries} entries"
        );
        let wanted = read_module(module, "nm", "--undefined-only")?;
        let debugfs = wanted.iter().any(|line| line.contains("debugfs_"));
        assert_eq!(debugfs, has_debugfs, "{}: {wanted:?}", module.display());
    }
    Ok(())
}

/// Returns true if an operand of a disassembled instruction is a floating-point or vector register.
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
        let indirect = indirect(arch, &text);
        assert!(indirect.is_empty(), "{arch}: {indirect:#?}");
        let prefix = objdump.trim_end_matches("objdump");
        let object = object.to_string_lossy();
        for (limit, fits) in [("2048", true), ("1", false)] {
            let arguments = [arch.debian(), "/", &object, limit];
            let variables = [("CROSS_COMPILE", prefix)];
            let (done, text) = script_in("frames.sh", &[folder], &variables, &arguments)?;
            assert_eq!(done, fits, "{arch}: {text}");
            assert_eq!(
                text.contains("the limit of the kernel"),
                !fits,
                "{arch}: {text}"
            );
        }
    }
    Ok(())
}

/// The instructions of a disassembly that branch to an address in a register or in memory, a
/// return aside: what a kernel with retpolines or control-flow integrity would have to know of.
fn indirect(arch: Arch, text: &str) -> Vec<&str> {
    let branches = |line: &&str| {
        let instruction = line.splitn(3, '\t').nth(2).unwrap_or_default();
        let mut words = instruction.split_whitespace();
        let (mnemonic, operand) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match arch {
            Arch::Aarch64 => {
                mnemonic.starts_with("br") && mnemonic != "brk" || mnemonic.starts_with("blr")
            }
            Arch::X86_64 => {
                (mnemonic.starts_with("call") || mnemonic.starts_with("jmp"))
                    && operand.starts_with('*')
            }
        }
    };
    text.lines().filter(branches).collect()
}

#[test]
fn the_disassembly_is_read_rightly() {
    let arm = "  0:\td61f0200\tbr\tx16\n  4:\td63f0100\tblr\tx8\n  8:\td65f03c0\tret\n  c:\t14000001\tb\t10 <f>\n";
    assert_eq!(indirect(Arch::Aarch64, arm).len(), 2);
    let x86 =
        "  0:\tff d0 \tcall   *%rax\n  2:\tff e0 \tjmp    *%rax\n  4:\te8 00 \tcall   9 <f>\n";
    assert_eq!(indirect(Arch::X86_64, x86).len(), 2);
    let arm = "  0:\t4e201c00\tand\tv0.16b, v0.16b, v0.16b\n  4:\tfd400000\tldr\td0, [x0]\n\
               8:\tb50000ab\tcbnz\tx11, d0 <varia_probe+0xd0>\n  c:\taa0003e0\tmov\tx0, x0\n";
    assert_eq!(forbidden(Arch::Aarch64, arm).0.len(), 2);
    let x86 = "  0:\t0f 57 c0 \txorps  %xmm0,%xmm0\n  3:\t48 89 c0 \tmov    %rax,%rax\n";
    assert_eq!(forbidden(Arch::X86_64, x86).0.len(), 1);
}
