//! Choice of the best driver for a device, by the `vfio_pci:` aliases that modules declare.
//!
//! The module of a VFIO variant driver lists the devices that it serves as ids that bind only on
//! request (`PCI_DRIVER_OVERRIDE_DEVICE_VFIO`); depmod writes these ids into `modules.alias` as
//! `alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci`. A device's `modalias`
//! has the same fields behind `pci:`. The best alias is the matching alias with the fewest
//! wildcards (of several, an alias that names the vendor, then the first); without a matching alias
//! the driver is vfio-pci. libvirt chooses in the same way (since 10.1).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use varia_facts::PciFunction;

use varia_spec::nvidia::chip::{Driver, Identity};

use crate::tree::Tree;

/// Driver that serves every device.
pub const VFIO_PCI: &str = "vfio-pci";
/// Fields of a modalias, in order, with the number of hexadecimal digits.
const FIELDS: [(&str, usize); 7] = [
    ("v", 8),
    ("d", 8),
    ("sv", 8),
    ("sd", 8),
    ("bc", 2),
    ("sc", 2),
    ("i", 2),
];
/// Longest accepted line of a file of aliases, in bytes.
const LINE: usize = 512;

/// True for two spellings of one module's or driver's name: `-` and `_` are the same.
#[must_use]
pub fn same_name(one: &str, other: &str) -> bool {
    one.len() == other.len() && module_name(one) == module_name(other)
}

/// Name of a module in the kernel's spelling.
#[must_use]
pub fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

/// True if the module of a driver is loaded, built in or can be loaded; `None` if the lists of the
/// kernel's modules can't be read.
#[must_use]
pub fn is_installed(tree: &Tree, release: &str, driver: &str) -> Option<bool> {
    let name = module_name(driver);
    if tree.exists(&format!("sys/module/{name}")) {
        return Some(true);
    }
    let lists = ["modules.dep", "modules.builtin"];
    let lists = lists.map(|list| tree.read(&format!("lib/modules/{release}/{list}")).ok());
    if lists.iter().all(Option::is_none) {
        return None;
    }
    let is_it = |line: &[u8]| {
        let path = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let file =
            String::from_utf8_lossy(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
        file.split(".ko")
            .next()
            .is_some_and(|module| module_name(module) == name)
    };
    let mut lines = lists
        .iter()
        .flatten()
        .flat_map(|list| list.split(|byte| *byte == b'\n'));
    Some(lines.any(is_it))
}

/// Identity of a PCI device for matching: vendor, device, subsystem vendor and device, base class,
/// subclass, programming interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modalias([u32; 7]);

/// Error for a text that is not a PCI modalias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a PCI modalias: give all fields, as in \
     pci:v000010DEd00002342sv000010DEsd00001809bc03sc02i00"
)]
pub struct ModaliasError(pub String);

impl Modalias {
    /// Modalias of a function.
    #[must_use]
    pub fn of(function: &PciFunction) -> Self {
        Self([
            function.vendor.into(),
            function.device.into(),
            function.subsystem_vendor.into(),
            function.subsystem_device.into(),
            function.class >> 16 & 0xff,
            function.class >> 8 & 0xff,
            function.class & 0xff,
        ])
    }

    /// Vendor and device id.
    #[must_use]
    pub fn id(&self) -> (u16, u16) {
        (self.0[0] as u16, self.0[1] as u16)
    }

    /// Subsystem vendor and device id.
    #[must_use]
    pub fn subsystem(&self) -> (u16, u16) {
        (self.0[2] as u16, self.0[3] as u16)
    }

    /// Class code, 24 bits.
    #[must_use]
    pub fn class(&self) -> u32 {
        self.0[4] << 16 | self.0[5] << 8 | self.0[6]
    }
}

impl FromStr for Modalias {
    type Err = ModaliasError;

    fn from_str(text: &str) -> Result<Self, ModaliasError> {
        let wrong = || ModaliasError(text.chars().take(200).collect());
        let fields = text.trim().strip_prefix("pci:").ok_or_else(wrong)?;
        let pattern = Pattern::parse(fields).ok_or_else(wrong)?;
        let mut values = [0; 7];
        for (value, field) in values.iter_mut().zip(pattern.0) {
            *value = field.ok_or_else(wrong)?;
        }
        Ok(Self(values))
    }
}

/// Fields of an alias, `None` for a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pattern([Option<u32>; 7]);

impl Pattern {
    fn parse(mut text: &str) -> Option<Self> {
        let mut fields = [None; 7];
        for (field, (name, digits)) in fields.iter_mut().zip(FIELDS) {
            text = text.strip_prefix(name)?;
            if let Some(rest) = text.strip_prefix('*') {
                text = rest;
                continue;
            }
            let (number, rest) = text.split_at_checked(digits)?;
            if !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            *field = Some(u32::from_str_radix(number, 16).ok()?);
            text = rest;
        }
        text.is_empty().then_some(Self(fields))
    }

    fn matches(&self, device: &Modalias) -> bool {
        let mut fields = self.0.iter().zip(device.0);
        fields.all(|(field, value)| field.is_none_or(|field| field == value))
    }

    fn wildcards(&self) -> usize {
        self.0.iter().filter(|field| field.is_none()).count()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("vfio_pci:")?;
        for ((name, digits), field) in FIELDS.iter().zip(self.0) {
            match field {
                Some(value) => write!(f, "{name}{value:0digits$X}")?,
                None => write!(f, "{name}*")?,
            }
        }
        Ok(())
    }
}

/// An alias, and the module that declares the alias.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    pattern: Pattern,
    module: u32,
}

/// All `vfio_pci:` aliases of a kernel's modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    modules: Vec<String>,
    /// Aliases by vendor, `None` for aliases of any vendor.
    aliases: HashMap<Option<u32>, Vec<Alias>>,
    /// Directory in which `modules.alias` is missing.
    missing: Option<String>,
    malformed: u64,
    /// The variant driver of GPUs with coherent memory is installed.
    has_variant: Option<bool>,
}

/// Best driver for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name of the module, as modules.alias spells it, or [`VFIO_PCI`].
    pub module: String,
    /// Reason for the choice.
    pub why: Why,
}

/// Reason for the choice of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The alias has the fewest wildcards of all matching aliases.
    Alias {
        /// The alias.
        alias: String,
        /// Number of wildcards among the alias's seven fields.
        wildcards: usize,
        /// Number of other modules with a matching alias, without vfio-pci.
        others: usize,
    },
    /// No variant driver's alias matches.
    NoAlias {
        /// Number of compared aliases.
        of: usize,
    },
    /// The GPU's chip has no coherent memory, so that no variant driver is needed.
    Plain {
        /// Name of the chip.
        chip: &'static str,
    },
    /// No released kernel's driver lists the id of this chip.
    Unreleased {
        /// Name of the chip.
        chip: &'static str,
    },
    /// The GPU's chip needs a variant driver, whose aliases lack the GPU's id.
    Unlisted {
        /// Name of the chip.
        chip: &'static str,
        /// The variant driver is installed.
        installed: bool,
    },
    /// The GPU's chip is not known.
    UnknownChip,
    /// The kernel's modules have no file of aliases.
    NoAliases {
        /// Directory of the kernel's modules.
        folder: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias {
                alias,
                wildcards,
                others,
            } => {
                write!(f, "{alias} matches, with {wildcards} wildcards")?;
                match others {
                    0 => f.write_str("; no other variant driver does"),
                    1 => f.write_str("; one other variant driver matches no better"),
                    more => write!(f, "; {more} other variant drivers match no better"),
                }
            }
            Self::NoAlias { of } => write!(
                f,
                "none of the {of} vfio_pci: aliases of this kernel's modules matches: no variant \
                 driver for this device is installed"
            ),
            Self::Plain { chip } => write!(
                f,
                "{chip} has no coherent memory: vfio-pci gives a VM all of the GPU"
            ),
            Self::Unreleased { chip } => write!(
                f,
                "no vfio_pci: alias of this kernel's modules matches, as no released kernel lists \
                 the id of {chip}: build Varia's module with UNRELEASED_IDS=y (docs/kernel.md)"
            ),
            Self::Unlisted {
                chip,
                installed: true,
            } => write!(
                f,
                "{chip} needs it, and the vfio_pci: aliases of the installed module lack the id: it \
                 is bound by driver_override"
            ),
            Self::Unlisted { chip, .. } => write!(
                f,
                "{chip} needs it, and it is not installed: vfio-pci gives a VM none of the GPU's \
                 memory (docs/kernel.md)"
            ),
            Self::UnknownChip => f.write_str(
                "no vfio_pci: alias of this kernel's modules matches, and the chip is not known: \
                 probe it (varia list --probe)",
            ),
            Self::NoAliases { folder } => write!(
                f,
                "{folder}/modules.alias does not exist: install the kernel's modules, or run depmod"
            ),
        }
    }
}

impl Aliases {
    /// Reads the aliases of the loadable and built-in modules of a kernel release.
    #[must_use]
    pub fn of(tree: &Tree, release: &str) -> Self {
        let folder = format!("lib/modules/{release}");
        let mut aliases = Self::default();
        if let Ok(bytes) = tree.read(&format!("{folder}/modules.alias")) {
            aliases.add(&bytes);
        } else {
            aliases.missing = Some(format!("/{folder}"));
        }
        if let Ok(bytes) = tree.read(&format!("{folder}/modules.builtin.modinfo")) {
            aliases.add_builtin(&bytes);
        }
        aliases.has_variant = is_installed(tree, release, Driver::NvgraceGpu.name());
        aliases
    }

    /// Adds the aliases of a file `modules.alias`. Ignores lines other than `vfio_pci:` aliases,
    /// and counts malformed `vfio_pci:` aliases.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut known = HashMap::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some(rest) = line.strip_prefix(b"alias vfio_pci:") else {
                continue;
            };
            let parts = std::str::from_utf8(rest)
                .ok()
                .filter(|rest| rest.len() <= LINE)
                .and_then(|rest| rest.trim_end().split_once(' '));
            match parts {
                Some((pattern, module)) => self.insert(&mut known, pattern, module),
                None => self.malformed += 1,
            }
        }
    }

    /// Adds the aliases of a file `modules.builtin.modinfo`: `module.alias=vfio_pci:...`, each with
    /// a NUL at its end.
    fn add_builtin(&mut self, bytes: &[u8]) {
        let mut known = HashMap::new();
        for record in bytes.split(|byte| *byte == 0) {
            let record = record.get(..LINE).unwrap_or(record);
            let record = std::str::from_utf8(record).unwrap_or_default();
            if let Some((module, pattern)) = record.split_once(".alias=vfio_pci:") {
                self.insert(&mut known, pattern, module);
            }
        }
    }

    fn insert<'a>(&mut self, known: &mut HashMap<&'a str, u32>, pattern: &str, module: &'a str) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let pattern = Pattern::parse(pattern);
        let (Some(pattern), false, true) = (pattern, module.is_empty(), module.bytes().all(good))
        else {
            self.malformed += 1;
            return;
        };
        let module = *known.entry(module).or_insert_with(|| {
            self.modules.push(module.to_owned());
            self.modules.len() as u32 - 1
        });
        let of_vendor = self.aliases.entry(pattern.0[0]).or_default();
        of_vendor.push(Alias { pattern, module });
    }

    /// Number of malformed `vfio_pci:` aliases.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Best driver for a device.
    #[must_use]
    pub fn best(&self, device: &Modalias) -> Choice {
        let mut best: Option<&Alias> = None;
        let mut matching = Vec::new();
        for key in [Some(device.0[0]), None] {
            for alias in self.aliases.get(&key).into_iter().flatten() {
                let module = self.module(alias);
                if !alias.pattern.matches(device) || same_name(module, VFIO_PCI) {
                    continue;
                }
                if !matching.contains(&alias.module) {
                    matching.push(alias.module);
                }
                let better =
                    best.is_none_or(|best| alias.pattern.wildcards() < best.pattern.wildcards());
                if better {
                    best = Some(alias);
                }
            }
        }
        match best {
            Some(alias) => Choice {
                module: self.module(alias).to_owned(),
                why: Why::Alias {
                    alias: alias.pattern.to_string(),
                    wildcards: alias.pattern.wildcards(),
                    others: matching.len() - 1,
                },
            },
            None => Choice {
                module: VFIO_PCI.to_owned(),
                why: match &self.missing {
                    Some(folder) => Why::NoAliases {
                        folder: folder.clone(),
                    },
                    None => Why::NoAlias {
                        of: self.aliases.values().map(Vec::len).sum(),
                    },
                },
            },
        }
    }

    /// Best driver for a device by the aliases and by the table of chips: the one decision of all
    /// commands. A GPU whose chip needs a variant driver never gets vfio-pci.
    #[must_use]
    pub fn choose(&self, device: &Modalias) -> Choice {
        let mut best = self.best(device);
        if matches!(best.why, Why::Alias { .. }) {
            return best;
        }
        let (vendor, id) = device.id();
        match Identity::of(vendor, id, device.class()) {
            Identity::Known(chip, _) if chip.driver() == Driver::VfioPci => {
                if matches!(best.why, Why::NoAlias { .. }) {
                    best.why = Why::Plain { chip: chip.name };
                }
            }
            Identity::Known(chip, sku) => {
                best.module = module_name(chip.driver().name());
                best.why = match (sku.released, self.has_variant, best.why) {
                    (false, _, Why::NoAlias { .. }) => Why::Unreleased { chip: chip.name },
                    // the lists of modules can't be read
                    (_, None, why) => why,
                    (_, Some(installed), _) => Why::Unlisted {
                        chip: chip.name,
                        installed,
                    },
                };
            }
            Identity::Unknown if matches!(best.why, Why::NoAlias { .. }) => {
                best.why = Why::UnknownChip;
            }
            Identity::Unknown | Identity::Other => {}
        }
        best
    }

    /// True if a module declares that it is a VFIO PCI driver.
    #[must_use]
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.iter().any(|module| same_name(module, name))
    }

    fn module(&self, alias: &Alias) -> &str {
        self.modules
            .get(alias.module as usize)
            .map_or(VFIO_PCI, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GH200: &str = "pci:v000010DEd00002342sv000010DEsd00001809bc03sc02i00";

    fn best(aliases: &str, device: &str) -> Choice {
        let mut all = Aliases::default();
        all.add(aliases.as_bytes());
        all.best(&device.parse().unwrap())
    }

    #[test]
    fn the_alias_with_the_fewest_wildcards_wins_wherever_it_stands() {
        let lines = [
            "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci",
            "alias vfio_pci:v000010DEd*sv*sd*bc03sc*i* any_gpu",
            "alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* nvgrace_gpu_vfio_pci",
            "alias vfio_pci:v000010DEd00002342sv*sd*bc03sc02i* best",
            "alias pci:v000010DEd00002342sv000010DEsd00001809bc03sc02i00 nvidia",
            "alias vfio_pci:v000010DEd00002341sv000010DEsd00001809bc03sc02i00 other",
        ];
        for turn in 0..lines.len() {
            let mut lines = lines;
            lines.rotate_left(turn);
            let choice = best(&lines.join("\n"), GH200);
            assert_eq!(choice.module, "best", "{lines:?}");
            let Why::Alias {
                wildcards, others, ..
            } = choice.why
            else {
                panic!("{choice:?}");
            };
            assert_eq!((wildcards, others), (3, 2));
        }
    }

    #[test]
    fn the_first_of_several_equally_good_aliases_wins() {
        let one = "alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* one";
        let two = "alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* two";
        assert_eq!(best(&format!("{one}\n{two}"), GH200).module, "one");
        assert_eq!(best(&format!("{two}\n{one}"), GH200).module, "two");
    }

    #[test]
    fn without_a_variant_driver_vfio_pci_is_chosen_with_the_reason() {
        let choice = best("alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci", GH200);
        assert_eq!(choice.module, VFIO_PCI);
        assert_eq!(choice.why, Why::NoAlias { of: 1 });
    }

    #[test]
    fn malformed_lines_are_counted_and_match_nothing() {
        let text = b"alias vfio_pci:v000010DEd00002342 short\n\
            alias vfio_pci:v000010DEd0000234Gsv*sd*bc*sc*i* digit\n\
            alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*\n\
            alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* ../../evil\n\
            alias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i*x tail\n\
            alias vfio_pci:\xff\xfe bytes\n\
            alias pci:v000010DEd* fine\n\0\0\0";
        let mut aliases = Aliases::default();
        aliases.add(text);
        assert_eq!(aliases.malformed(), 6);
        assert_eq!(aliases.best(&GH200.parse().unwrap()).module, VFIO_PCI);
    }

    #[test]
    fn fifty_megabytes_of_noise_are_read_to_their_end() {
        let mut noise: Vec<u8> = (0..50_000_000_u32)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        noise.extend_from_slice(b"\nalias vfio_pci:v000010DEd00002342sv*sd*bc*sc*i* behind_it\n");
        let mut aliases = Aliases::default();
        aliases.add(&noise);
        assert_eq!(aliases.best(&GH200.parse().unwrap()).module, "behind_it");
    }

    #[test]
    fn both_spellings_are_the_same_name() {
        assert!(same_name("nvgrace-gpu_vfio-pci", "nvgrace_gpu_vfio_pci"));
        assert!(!same_name("vfio-pci", "vfio-pci-core"));
    }

    #[test]
    fn aliases_of_a_built_in_driver_are_read() {
        let mut aliases = Aliases::default();
        aliases.add_builtin(
            b"vfio.license=GPL\0mlx5_vfio_pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*\0",
        );
        let device = "pci:v000015B3d0000101Esv000015B3sd00000058bc02sc00i00";
        assert_eq!(
            aliases.best(&device.parse().unwrap()).module,
            "mlx5_vfio_pci"
        );
    }

    #[test]
    fn a_modalias_without_values_is_refused_with_its_text() {
        for text in ["", "usb:v1", "pci:v*d*sv*sd*bc*sc*i*", "pci:v000010DE"] {
            assert_eq!(
                text.parse::<Modalias>(),
                Err(ModaliasError(text.to_owned()))
            );
        }
    }
}
