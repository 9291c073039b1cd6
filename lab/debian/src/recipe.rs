//! Packages of each set, by suite.

use varia_units::Arch;

use crate::apt::Wanted;
use crate::arch::{ArchNames, host_arch};
use crate::choice::{Choice, series_of};
use crate::error::Result;
use crate::packages::Set;
use crate::series::Series;
use crate::suite::Suite;

/// Debian's name of its arm64 kernel with pages of 16 KiB.
pub const ARM64_16K: &str = "arm64-16k";

/// Debian's name of s390x, and of its kernel there.
pub const S390X: &str = "s390x";

/// Debian's kernels that the lab builds modules for.
const KERNELS: [(&str, Arch); 3] = [
    ("arm64", Arch::Aarch64),
    ("amd64", Arch::X86_64),
    (ARM64_16K, Arch::Aarch64),
];

/// Packages of a set, suite by suite. They are unpacked in this order: a file of a later suite
/// replaces one of an earlier suite.
///
/// # Errors
/// [`crate::Error::Missing`] on a machine that the lab has no tools for.
pub fn recipe(set: Set, choice: &Choice) -> Result<Vec<(Suite, Wanted)>> {
    let host = host_arch()?;
    let kernel = &choice.kernel.version;
    let mut parts = Parts(Vec::new());
    match set {
        Set::Qemu => {
            let qemu = parts.of(choice.qemu.suite);
            qemu.add_whole("qemu-system-arm qemu-system-x86 seabios");
        }
        Set::Guest(arch) => {
            let debian = arch.debian();
            let of_kernel = parts.of(choice.kernel.suite);
            for part in ["binary", "modules", "base"] {
                of_kernel.add_alone(&format!("linux-{part}-{kernel}-{debian}:{debian}"));
            }
            let of_qemu = parts.of(choice.qemu.suite);
            of_qemu.add_alone(&format!("busybox-static:{debian}"));
            if arch == Arch::Aarch64 {
                of_qemu.add_alone("qemu-efi-aarch64");
            }
        }
        Set::Kernel16k => {
            let of_kernel = parts.of(choice.kernel.suite);
            for part in ["binary", "modules", "base"] {
                of_kernel.add_alone(&format!("linux-{part}-{kernel}-{ARM64_16K}:arm64"));
            }
        }
        Set::Headers(series) => {
            let of_kernel = parts.of(choice.kernel.suite);
            if series == Series::Next {
                of_kernel.add_alone(&format!("linux-source-{}", series.name()));
            }
            of_kernel.add_alone(&format!("linux-kbuild-{kernel}:{}", host.debian()));
            of_kernel.add_alone(&format!("linux-headers-{kernel}-common"));
            for (flavour, arch) in KERNELS {
                let debian = arch.debian();
                of_kernel.add_alone(&format!("linux-headers-{kernel}-{flavour}:{debian}"));
            }
        }
        Set::Kernel(_, arch) => {
            let debian = arch.debian();
            let of_kernel = parts.of(choice.kernel.suite);
            for part in ["binary", "modules", "base"] {
                of_kernel.add_alone(&format!("linux-{part}-{kernel}-{debian}:{debian}"));
            }
        }
        Set::RustCross => rust_cross(host, choice.gcc, parts.of(choice.rustc.suite)),
        Set::Tools => {
            // The kernel's part comes first: what linux-source depends on is also among the tools,
            // in the version that fits them.
            parts.of(choice.kernel.suite);
            let tools = parts.of(choice.rustc.suite);
            rust_cross(host, choice.gcc, tools);
            tools.add_whole(
                "rust-src make pahole acpica-tools bash findutils tar xz-utils gzip diffutils sed \
                 grep mawk perl-base bc flex bison cpio kmod pciutils libssl-dev libelf-dev \
                 busybox-static dpkg",
            );
            let of_kernel = parts.of(choice.kernel.suite);
            of_kernel.add_whole(&format!("linux-source-{}", series_of(kernel)));
            of_kernel.add_alone(&format!("linux-kbuild-{kernel}:{}", host.debian()));
            of_kernel.add_alone(&format!("linux-headers-{kernel}-common"));
            for arch in Arch::ALL {
                let uuid = format!("uuid-dev:{}", arch.debian());
                parts.of(choice.rustc.suite).add_alone(&uuid);
            }
            let of_kernel = parts.of(choice.kernel.suite);
            for (flavour, arch) in KERNELS {
                let debian = arch.debian();
                of_kernel.add_alone(&format!("linux-headers-{kernel}-{flavour}:{debian}"));
                of_kernel.add_alone(&format!("linux-base-{kernel}-{flavour}:{debian}"));
            }
        }
        Set::KernelRust => parts.of(choice.rustc.suite).add_whole(
            "rustc rust-src rustfmt rust-clippy bindgen clang lld llvm make bash dash coreutils \
             findutils tar xz-utils gzip diffutils sed grep mawk perl bc flex bison cpio kmod \
             libssl-dev libelf-dev libc6-dev python3-minimal patch",
        ),
        Set::Proot => parts.of(choice.rustc.suite).add_whole("proot"),
        Set::Userland(arch) => {
            let qemu = match arch {
                Arch::Aarch64 => "qemu-system-arm",
                Arch::X86_64 => "qemu-system-x86",
            };
            let userland = parts.of(choice.qemu.suite);
            for name in [qemu, "pciutils", "busybox-static", "coreutils", "dash"] {
                userland.add_whole(&format!("{name}:{}", arch.debian()));
            }
            if arch == Arch::Aarch64 {
                userland.add_whole("qemu-efi-aarch64");
            }
        }
        Set::Dkms(arch) => {
            let debian = arch.debian();
            // What every Debian has, and what a machine that uses dkms has beside it.
            let names = format!(
                "bash base-files base-passwd coreutils dash debianutils diffutils dpkg findutils \
                 grep gzip hostname init-system-helpers libc-bin login ncurses-bin perl-base sed \
                 sysvinit-utils tar util-linux mawk dkms gcc make linux-headers-{kernel}-{debian}"
            );
            let system = parts.of(choice.kernel.suite);
            for name in names.split_whitespace() {
                system.add_whole(&format!("{name}:{debian}"));
            }
        }
        Set::Documentation => {
            let readers = parts.of(choice.rustc.suite);
            readers.add_whole("mdbook mandoc zsh bash coreutils grep libpcre2-8-0 libpcre2-32-0");
            // Alone: fish depends on a reader of manuals and on Python, for other purposes.
            readers.add_alone("fish fish-common");
        }
        Set::S390x => {
            let of_kernel = parts.of(choice.kernel.suite);
            for part in ["binary", "modules"] {
                of_kernel.add_alone(&format!("linux-{part}-{kernel}-{S390X}:{S390X}"));
            }
            // with the libraries of the set with QEMU
            let of_qemu = parts.of(choice.qemu.suite);
            of_qemu.add_alone("qemu-system-s390x");
            for name in ["busybox-static", "perl-base", "libc6", "libcrypt1"] {
                of_qemu.add_alone(&format!("{name}:{S390X}"));
            }
        }
        Set::BootDisk => {
            let tools = parts.of(choice.qemu.suite);
            tools.add_whole("mtools coreutils");
            tools.add_alone("grub-efi-arm64-unsigned:arm64");
        }
        Set::Musl => {
            let libraries = parts.of(choice.rustc.suite);
            for arch in Arch::ALL {
                libraries.add_alone(&format!("musl-dev:{}", arch.debian()));
            }
        }
        Set::Packaging => {
            let judges = parts.of(choice.rustc.suite);
            judges.add_whole(
                "lintian systemd udev bash coreutils dash sed grep gzip tar xz-utils findutils \
                 base-files libc-bin dpkg perl-base",
            );
        }
        Set::Libvirt(arch) => {
            let debian = arch.debian();
            let libvirt = parts.of(choice.qemu.suite);
            let mut add = |names: &str| {
                for name in names.split_whitespace() {
                    libvirt.add_whole(&format!("{name}:{debian}"));
                }
            };
            add("libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt-common");
            match arch {
                Arch::Aarch64 => {
                    libvirt.add_alone(&format!("qemu-efi-aarch64 bsdutils:{debian}"));
                }
                Arch::X86_64 => add(
                    "libxml2-utils qemu-system-arm qemu-efi-aarch64 bash coreutils dash grep sed \
                     base-passwd busybox-static",
                ),
            }
        }
    }
    Ok(parts.0)
}

/// Rust, with what links programs for both architectures.
fn rust_cross(host: Arch, gcc: u32, tools: &mut Wanted) {
    let other = match host {
        Arch::Aarch64 => Arch::X86_64,
        Arch::X86_64 => Arch::Aarch64,
    };
    tools.add_whole("rustc cargo libstd-rust-dev libc6-dev dash coreutils");
    let triplet = other.triplet().replace('_', "-");
    tools.add_whole(&format!("gcc-{gcc} gcc-{gcc}-{triplet}"));
    tools.add_whole(&format!("libc6-dev-{}-cross", other.debian()));
    // Only the target's library files are wanted, not a second compiler.
    tools.add_alone(&format!("libstd-rust-dev:{}", other.debian()));
}

/// Packages by suite, in the order in which suites were named.
struct Parts(Vec<(Suite, Wanted)>);

impl Parts {
    /// The packages of one suite.
    fn of(&mut self, suite: Suite) -> &mut Wanted {
        let known = self.0.iter().position(|(known, _)| *known == suite);
        let index = known.unwrap_or_else(|| {
            self.0.push((suite, Wanted::default()));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::choice::Pick;

    pub(crate) fn choice() -> Choice {
        let forky = |version: &str| Pick {
            suite: Suite::Forky,
            version: version.to_owned(),
        };
        Choice {
            kernel: forky("7.2.12+deb14"),
            qemu: forky("11.1.2+ds-3"),
            rustc: forky("1.97.1+dfsg1-1"),
            gcc: 16,
            remarks: Vec::new(),
        }
    }

    /// The packages of a set that come from one suite alone.
    fn of_forky(set: Set) -> Wanted {
        let [(Suite::Forky, wanted)] = &recipe(set, &choice()).unwrap()[..] else {
            panic!("{set:?} has packages of another suite");
        };
        wanted.clone()
    }

    #[test]
    fn a_guest_needs_no_dependencies() {
        let wanted = of_forky(Set::Guest(Arch::X86_64));
        assert!(wanted.whole.is_empty(), "{wanted:?}");
        assert!(
            wanted
                .alone
                .contains(&"linux-modules-7.2.12+deb14-amd64:amd64".to_owned())
        );
    }

    #[test]
    fn the_tools_contain_what_the_cross_compiler_set_has() {
        let (tools, cross) = (of_forky(Set::Tools), of_forky(Set::RustCross));
        assert!(cross.whole.iter().all(|name| tools.whole.contains(name)));
        assert!(cross.alone.iter().all(|name| tools.alone.contains(name)));
    }

    #[test]
    fn a_kernel_comes_with_headers_and_source_of_its_own_suite() {
        let mut choice = choice();
        choice.kernel.suite = Suite::Sid;
        choice.kernel.version = "7.2.13+deb14".to_owned();
        let sets = [
            Set::Guest(Arch::Aarch64),
            Set::Guest(Arch::X86_64),
            Set::Kernel16k,
            Set::Tools,
            Set::Dkms(Arch::X86_64),
        ];
        for set in sets {
            let parts = recipe(set, &choice).unwrap();
            let linux = |wanted: &Wanted| {
                let mut names = wanted.whole.iter().chain(&wanted.alone);
                names.any(|name| name.starts_with("linux-"))
            };
            let of_kernel: Vec<_> = parts.iter().filter(|(_, wanted)| linux(wanted)).collect();
            assert!(matches!(of_kernel[..], [(Suite::Sid, _)]), "{parts:?}");
        }
        let tools = recipe(Set::Tools, &choice).unwrap();
        let [(Suite::Sid, of_kernel), (Suite::Forky, of_tools)] = &tools[..] else {
            panic!("{tools:?}");
        };
        assert_eq!(of_kernel.whole, ["linux-source-7.2"]);
        assert!(of_tools.whole.contains(&"rust-src".to_owned()));
    }
}
