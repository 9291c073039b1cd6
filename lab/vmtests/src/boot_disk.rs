//! A disk image that boots by itself: a boot loader with its own configuration, a kernel and an
//! initramfs in the FAT file system of an EFI system partition.

use std::fs;
use std::path::Path;

use varia_lab::chroot::Chroot;
use varia_lab::{Arch, Kernel, Set, packages};

use crate::error::{Error, Result};

/// Bytes of the image.
const SIZE: u64 = 96 << 20;
/// Path of the loader that firmware starts on removable media (UEFI 2.10, 3.5.1.1).
const LOADER: &str = "::/EFI/BOOT/BOOTAA64.EFI";
/// Debian's loader reads its configuration here.
const CONFIGURATION: &str = "::/EFI/debian/grub.cfg";

/// Writes an arm64 image to `image` whose kernel, Debian's, starts with this command line.
///
/// # Errors
/// Errors of the lab and of the file system.
pub fn write(image: &Path, initramfs: &[u8], command_line: &str) -> Result<()> {
    let set = packages::ensure(Set::BootDisk)?;
    let kernel = Kernel::of(Arch::Aarch64)?.image;
    let folder = tempfile::tempdir().map_err(Error::io("create a temporary folder"))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).map_err(Error::io("write a part of an image"))?;
        Ok::<_, Error>(path)
    };
    let initramfs = put("initramfs", initramfs)?;
    let text = format!("linux /vmlinuz {command_line}\ninitrd /initramfs\nboot\n");
    let configuration = put("grub.cfg", text.as_bytes())?;
    let loader = set.path("/usr/lib/grub/arm64-efi/monolithic/grubaa64.efi");
    // the tools see the folder of the image alone
    let parts = [
        (loader.as_path(), LOADER),
        (&configuration, CONFIGURATION),
        (&kernel, "::/vmlinuz"),
        (&initramfs, "::/initramfs"),
    ];
    fs::File::create(image)
        .and_then(|file| file.set_len(SIZE))
        .map_err(Error::io("create an image"))?;
    let parent = image.parent().unwrap_or(Path::new("/"));
    let mut root = Chroot::new(&set).bind(parent).bind(folder.path());
    for (path, _) in parts {
        if let Some(parent) = path.parent() {
            root = root.bind(parent);
        }
    }
    let image = image.display().to_string();
    let run = |words: &[&str]| root.run(words.iter().copied().map(str::to_owned));
    run(&["mformat", "-i", &image, "-F", "::"])?;
    for made in ["::/EFI", "::/EFI/BOOT", "::/EFI/debian"] {
        run(&["mmd", "-i", &image, made])?;
    }
    for (path, place) in parts {
        run(&["mcopy", "-i", &image, &path.display().to_string(), place])?;
    }
    Ok(())
}
